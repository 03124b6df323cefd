"""The collections of a simulated installation, and Debezium's connector over the log of an in-memory database.

`docs` is a PostgreSQL table with tenants and metadata; `notes` a MariaDB table with a column for embeddings.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import orjson

from connectors.debezium.changes import UNAVAILABLE
from connectors.memory.bus import MemoryBus
from connectors.memory.legacy import MemoryLegacy
from domain.legacy import LegacyRow, TableDescription
from domain.positions import mariadb_end, postgres_end
from schemas.content import Content
from schemas.documents import Position
from schemas.records import Outgoing
from schemas.settings import Collection, EmbeddingColumn, Kafka, Settings, Worker
from schemas.values import Kind
from tests.simulation.ports import POISON
from topics.captures import Capture

PARTITIONS = 2
SOURCE_EPOCHS = 3
"""The number of source epochs of a table. Its slot may be lost one time fewer."""
MAX_TEXT_BYTES = 200
LONG = "x" * (MAX_TEXT_BYTES + 1)
"""A text that only an application writes: the document is too long for Qdrant."""
SETTINGS = Settings(
    kafka=Kafka(partitions=PARTITIONS, max_text_bytes=MAX_TEXT_BYTES),
    worker=Worker(batch=4, batch_interval_ms=0, retry_attempts=2, retry_max_s=0.0),
    collections={
        "docs": Collection(
            dsn="postgresql://app@localhost/shop",
            table="public.docs",
            key=("id",),
            text=("title", "body"),
            metadata=("year",),
            tenant="tenant",
        ),
        "notes": Collection(
            connector="mariadb",
            table="shop.notes",
            key=("id",),
            text=("body",),
            embedding=EmbeddingColumn(column="vector", format="float32"),
        ),
    },
)
DESCRIPTIONS = {
    "docs": TableDescription(("id",), ("title", "body"), {"year": Kind.INTEGER}, "tenant", None),
    "notes": TableDescription(("id",), ("body",), {}, None, "vector"),
}
DOCUMENTS = ("docs/a", "docs/b", "docs/c", "docs/d", "notes/1", "notes/2", "notes/3")


def capture_in(name: str, source_epoch: int) -> Capture:
    """Return the names under which a collection is captured in a source epoch."""
    suffix = "" if source_epoch == 1 else f".e{source_epoch}"
    return Capture(source_epoch, f"capture.{name}{suffix}", f"{name}{suffix}", SETTINGS.collections[name].table)


def refuses(_: str, content: Content) -> str | None:
    """Return why the tables' constraint refuses a content, or None if it does not."""
    return "value too long" if POISON in content.full_text() else None


def legacy_of(name: str) -> MemoryLegacy:
    """Return the empty table of a collection."""
    kinds = [Kind.INTEGER] if name == "notes" else [Kind.TEXT]
    return MemoryLegacy(name, DESCRIPTIONS[name], key_kinds=kinds, constraint=refuses)


class Connector:
    """Debezium's connector of one table. It publishes a snapshot first, then the changes, each at least once."""

    def __init__(self, legacy: MemoryLegacy, bus: MemoryBus, source_epoch: int = 1) -> None:
        self.legacy = legacy
        self.source_epoch = source_epoch
        self._capture = capture_in(legacy.name, source_epoch)
        self.topic = self._capture.topic
        self._postgres = SETTINGS.collections[legacy.name].connector == "postgres"
        self._bus = bus
        self._snapshot = list(legacy.stored.values())
        self._at = self._saved = 0

    def __len__(self) -> int:
        return len(self._snapshot) + len(self.legacy.images)

    @property
    def behind(self) -> bool:
        """Whether something is not yet published and saved."""
        return self._saved < len(self)

    @property
    def end(self) -> Position:
        """A position at or above every change so far."""
        at = 100 * len(self.legacy.images)
        if self._postgres:
            return postgres_end(1000 + at, self.source_epoch)
        return mariadb_end(f"bin.{1 + at // 1000:06d}", at % 1000 + 5, self.source_epoch)

    def publish(self, count: int, holes: int, saved: bool) -> None:
        """Publish the next changes. For each change, two bits of `holes` select how its row is left incomplete."""
        for number in range(count):
            if self._at < len(self):
                self._publish(self._at, holes >> 2 * number & 3)
                self._at += 1
        if saved:
            self._saved = self._at

    def crash(self) -> None:
        """Go back to what was saved, and publish again what was published since then."""
        self._at = self._saved

    def rewind(self, back: int) -> None:
        """Go back to `back` changes before what was saved."""
        self._at = self._saved = max(0, self._saved - back)

    def _publish(self, at: int, holes: int) -> None:
        if at < len(self._snapshot):
            row = self._snapshot[at]
            self._send(row.id, {"op": "r", "before": None, "after": self._columns(row), "source": self._source(None)})
            return
        number = at - len(self._snapshot)
        old, new = self.legacy.images[number]
        before, after = self._columns(old), self._columns(new)
        self._leave_out(before, after, holes)
        operation = "d" if after is None else "c" if before is None else "u"
        known = old or new
        assert known is not None
        self._send(known.id, {"op": operation, "before": before, "after": after, "source": self._source(number)})
        if operation == "d":
            self._bus.append(Outgoing(self.topic, self._key(known.id), None))

    @staticmethod
    def _leave_out(before: dict[str, Any] | None, after: dict[str, Any] | None, holes: int) -> None:
        """Leave out an unchanged text (1: from the row after the change, 2: from the row before it as well)."""
        if before is None or after is None or not holes or before["body"] != after["body"]:
            return
        after["body"] = UNAVAILABLE
        if holes > 1:
            before["body"] = UNAVAILABLE

    def _send(self, document_id: str, envelope: Mapping[str, Any]) -> None:
        self._bus.append(Outgoing(self.topic, self._key(document_id), orjson.dumps(envelope)))

    def _key(self, document_id: str) -> bytes:
        return orjson.dumps({"id": int(document_id) if self.legacy.name == "notes" else document_id})

    def _columns(self, row: LegacyRow | None) -> dict[str, Any] | None:
        if row is None:
            return None
        content, description = row.content, self.legacy.description
        columns: dict[str, Any] = {"id": int(row.id) if self.legacy.name == "notes" else row.id}
        columns |= content.text | content.metadata
        if description.tenant is not None:
            columns[description.tenant] = content.tenant
        if description.embedding is not None:
            given = content.embedding
            columns[description.embedding] = None if given is None else base64.b64encode(given).decode()
        return columns | {"crossfade_version": row.version}

    def _source(self, number: int | None) -> dict[str, Any]:
        """Return the replication position of a change; None stands for the snapshot."""
        snapshot, at = ("true", 0) if number is None else ("false", 100 * (number + 1))
        space, _, table = self._capture.table.partition(".")
        origin = {"name": self._capture.prefix, "db": "shop", "schema": space, "table": table}
        if self._postgres:
            # The last commit before the change, and the change itself, which may be lower than an earlier change.
            start = 1000 + at - 150 * ((number or 0) % 3)
            commit = "null" if number is None else f'"{1000 + at - 100}"'
            sequence = f'[{commit},"{start}"]'
            return {
                "connector": "postgresql",
                "snapshot": snapshot,
                "sequence": sequence,
                "ts_ms": 1,
            } | origin
        place = {"file": f"bin.{1 + at // 1000:06d}", "pos": at % 1000 + 4, "row": 0}
        return {"connector": "mariadb", "snapshot": snapshot, "ts_ms": 1, **place} | origin
