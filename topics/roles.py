"""The single table of roles: the topics and stores that each reads and writes, in the order of the pipeline.

`agents.wiring` binds handlers to it; lag, barrier, provisioning, documents and diagrams are derived from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from topics.catalogue import (
    ANSWERED,
    ASKED,
    COMPARED,
    DECIDED,
    EMBEDDED,
    LOG,
    RESOLVED,
    ROLLOUT_COMMANDS,
    ROLLOUT_DECIDED,
    ROLLOUT_PHASES,
    SUBMITTED,
    WRITTEN,
    Topic,
    group_of,
)

RoleName = Literal["intake", "capture", "resolver", "legacy", "embedder", "vector", "query", "conductor"]


@dataclass(frozen=True, slots=True)
class Role:
    """One role: an agent and its consumer group.

    `stage` is its position in the pipeline of documents, 0 for a role outside of it. `reads` is empty for capture,
    which reads Debezium's topics, one per table. The role writes `stores` and only reads `looks_in`.
    """

    name: RoleName
    stage: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    stores: tuple[str, ...] = ()
    looks_in: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """Its consumer group."""
        return group_of(self.name)

    def topics(self, captured: Iterable[str] = ()) -> tuple[str, ...]:
        """Return the topics that it reads; `captured` are Debezium's, whose names are in no configuration."""
        return tuple(captured) if self.name == "capture" else self.reads


ROLES: tuple[Role, ...] = (
    Role("intake", 1, (SUBMITTED,), (LOG, WRITTEN)),
    Role("capture", 1, (), (LOG,)),
    Role("resolver", 2, (LOG,), (RESOLVED, LOG, WRITTEN), ("ledger",)),
    Role("legacy", 3, (RESOLVED,), (WRITTEN, LOG), ("ledger", "legacy table")),
    Role("embedder", 3, (RESOLVED,), (EMBEDDED, WRITTEN), looks_in=("Qdrant",)),
    Role("vector", 4, (EMBEDDED,), (WRITTEN,), ("Qdrant", "ledger")),
    Role("query", 0, (ASKED,), (DECIDED, ANSWERED, COMPARED), looks_in=("legacy table", "Qdrant")),
    Role("conductor", 0, (ROLLOUT_COMMANDS,), (ROLLOUT_PHASES, ROLLOUT_DECIDED), looks_in=("ledger",)),
)
BY_NAME: Mapping[RoleName, Role] = {role.name: role for role in ROLES}
ROLE_NAMES: tuple[RoleName, ...] = tuple(role.name for role in ROLES)
PIPELINE: tuple[Role, ...] = tuple(role for role in ROLES if role.stage)
STAGES: tuple[tuple[Role, ...], ...] = tuple(
    tuple(role for role in PIPELINE if role.stage == stage) for stage in sorted({role.stage for role in PIPELINE})
)
# Roles that append refreshes to the log send a change through the stages a second time, from the log's reader on.
_LOOP = slice(1, max(role.stage for role in PIPELINE if LOG in role.writes))
BARRIER: tuple[tuple[Role, ...], ...] = (STAGES[0], *STAGES[_LOOP], *STAGES[1:])
"""The order in which the stages must commit the records of their topics before the barrier is drained."""


def readers_of(topic: Topic) -> tuple[str, ...]:
    """Return the roles that read a topic, and its readers outside of the workers."""
    return (*(role.name for role in ROLES if topic.name in role.reads), *topic.readers)


def writers_of(topic: Topic) -> tuple[str, ...]:
    """Return the roles that write a topic, and its writers outside of the workers."""
    return (*(role.name for role in ROLES if topic.name in role.writes), *topic.writers)


def working_topics() -> dict[str, tuple[Role, ...]]:
    """Return the topics that the pipeline's roles read, without capture's, with their readers."""
    names = sorted({topic for role in PIPELINE for topic in role.reads})
    return {name: tuple(role for role in PIPELINE if name in role.reads) for name in names}
