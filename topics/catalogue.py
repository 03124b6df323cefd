"""The single list of topics: name, events and retention. Provisioning and documents are derived from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas.documents import (
    DifferenceFound,
    DifferenceRepaired,
    DocumentChanged,
    DocumentEmbedded,
    DocumentResolved,
    DocumentSubmitted,
    DocumentWritten,
    Event,
)
from schemas.queries import QueryAnswered, QueryAsked, RouteDecided, ShadowCompared
from schemas.rollout import PhaseChanged, RolloutCommanded, RolloutDecided
from schemas.service import ServiceChanged

DAY_MS = 24 * 3600 * 1000
FOR_EVER = -1
DEAD_LETTER_SUFFIX = "-dlt"
GROUP_PREFIX = "crossfade-"
# The metadata of a committed offset from which a parked collection resumes. An offset without it is outdated.
PARKED = "parked"

SUBMITTED = "crossfade.documents.submitted.v1"
LOG = "crossfade.documents.log.v1"
RESOLVED = "crossfade.documents.resolved.v1"
EMBEDDED = "crossfade.documents.embedded.v1"
WRITTEN = "crossfade.documents.written.v1"
DIFFERENCES = "crossfade.reconciliation.differences.v1"
ASKED = "crossfade.queries.asked.v1"
ANSWERED = "crossfade.queries.answered.v1"
DECIDED = "crossfade.routing.decided.v1"
COMPARED = "crossfade.shadow.compared.v1"
SERVICE = "crossfade.service.changed.v1"
ROLLOUT_COMMANDS = "crossfade.rollout.commands.v1"
ROLLOUT_PHASES = "crossfade.rollout.phases.v1"
ROLLOUT_DECIDED = "crossfade.rollout.decided.v1"

Partitions = Literal["working", "log", "one"]


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic.

    `partitions`: "log" topics have exactly the partition count of the document log, because a version is an offset in
    it and a key must be in the same partition everywhere. "working" topics also have the configured count, but may be
    widened at any time. `large` topics take records of the configured maximum; for the others Kafka's default of 1 MiB
    is enough. `writers` and `readers` are outside of the workers; the roles are in `topics.roles`.
    """

    name: str
    events: tuple[type[Event], ...]
    retention_ms: int
    partitions: Partitions = "working"
    large: bool = False
    cleanup: Literal["delete", "compact"] = "delete"
    dead_letters: bool = False
    writers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()


CATALOGUE: tuple[Topic, ...] = (
    Topic(
        SUBMITTED,
        (DocumentSubmitted,),
        7 * DAY_MS,
        large=True,
        dead_letters=True,
        writers=("producers",),
    ),
    Topic(
        LOG,
        (DocumentChanged,),
        FOR_EVER,
        "log",
        large=True,
        dead_letters=True,
        writers=("verifier",),
    ),
    Topic(
        RESOLVED,
        (DocumentResolved,),
        7 * DAY_MS,
        "log",
        large=True,
        dead_letters=True,
    ),
    Topic(
        EMBEDDED,
        (DocumentEmbedded,),
        3 * DAY_MS,
        "log",
        large=True,
        dead_letters=True,
    ),
    Topic(
        WRITTEN,
        (DocumentWritten,),
        7 * DAY_MS,
        readers=("consumers",),
    ),
    Topic(
        DIFFERENCES,
        (DifferenceFound, DifferenceRepaired),
        30 * DAY_MS,
        writers=("verifier",),
        readers=("consumers",),
    ),
    Topic(ASKED, (QueryAsked,), DAY_MS, dead_letters=True, writers=("anyone",)),
    Topic(ANSWERED, (QueryAnswered,), DAY_MS, large=True, readers=("consumers",)),
    Topic(
        DECIDED,
        (RouteDecided,),
        30 * DAY_MS,
        readers=(
            "consumers",
            "audit",
        ),
    ),
    Topic(COMPARED, (ShadowCompared,), 7 * DAY_MS, readers=("conductor", "operators")),
    Topic(
        SERVICE,
        (ServiceChanged,),
        30 * DAY_MS,
        "one",
        writers=("worker",),
        readers=(
            "consumers",
            "audit",
        ),
    ),
    # One partition: one conductor is active, and takes the commands in their order.
    Topic(ROLLOUT_COMMANDS, (RolloutCommanded,), 30 * DAY_MS, "one", dead_letters=True, writers=("operators",)),
    Topic(ROLLOUT_PHASES, (PhaseChanged,), FOR_EVER, "one", cleanup="compact", readers=("every worker", "operators")),
    # For ever: the phases are compacted, so this is the only history of a migration.
    Topic(ROLLOUT_DECIDED, (RolloutDecided,), FOR_EVER, "one", readers=("operators", "audit")),
)


def capture_topic(prefix: str, table: str) -> str:
    """Return Debezium's topic for a table named `schema.table` (PostgreSQL) or `database.table` (MariaDB)."""
    return f"{prefix}.{table}"


def dead_letter_topic(topic: str) -> str:
    """Return the name of a topic's dead-letter topic."""
    return topic + DEAD_LETTER_SUFFIX


def group_of(role: str) -> str:
    """Return the consumer group of a role."""
    return GROUP_PREFIX + role


def parked_group_of(group: str, collection: str) -> str:
    """Return the consumer group with the offsets from which a role resumes a collection that it parked."""
    return f"{group}.parked.{collection}"
