"""The wiring: topic → handler → topics, one row a role. Documents and diagrams are made from this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from topics.catalogue import ANSWERED, ASKED, DECIDED, EMBEDDED, LOG, RESOLVED, SUBMITTED, WRITTEN

RoleName = Literal["intake", "capture", "resolver", "legacy", "embedder", "vector", "query"]


@dataclass(frozen=True, slots=True)
class Role:
    """One agent. `reads` is empty for capture: its topics are Debezium's, one for each configured table."""

    name: RoleName
    reads: tuple[str, ...]
    handler: str
    writes: tuple[str, ...]
    stores: tuple[str, ...] = ()


WIRING: tuple[Role, ...] = (
    Role("intake", (SUBMITTED,), "agents.intake.intake", (LOG, WRITTEN)),
    Role("capture", (), "agents.capture.capture", (LOG,)),
    Role("resolver", (LOG,), "agents.resolver.resolve", (RESOLVED, LOG, WRITTEN), ("ledger",)),
    Role("legacy", (RESOLVED,), "agents.legacy_writer.write_legacy", (WRITTEN, LOG), ("ledger", "legacy table")),
    Role("embedder", (RESOLVED,), "agents.embedder.embed", (EMBEDDED, WRITTEN), ("Qdrant (reads)",)),
    Role("vector", (EMBEDDED,), "agents.vector_writer.write_vectors", (WRITTEN,), ("Qdrant", "ledger")),
    Role("query", (ASKED,), "agents.query.answer", (DECIDED, ANSWERED), ("legacy table (reads)", "Qdrant (reads)")),
)
ROLES: tuple[RoleName, ...] = tuple(role.name for role in WIRING)
