"""The invariants that must hold at every moment of a history, checked as records, effects and commits happen.

The numbers in messages are those of the protocol's invariants: 2 commits, 3 versions, 5 chunks, 13 tenants. The checks
read the stores directly, never through crossfade's own verifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from agents.legacy_writer import RefusedByLegacy
from connectors.debezium.changes import UNAVAILABLE
from connectors.memory.bus import MemoryBus
from connectors.memory.legacy import MemoryLegacy
from connectors.memory.vectors import MemoryVectorStore
from domain.ledger import LedgerRow
from domain.legacy import LegacyVerdict
from domain.points import StoredChunk, newest_version
from schemas.content import Content
from schemas.dead_letters import ERROR_CLASS, OFFSET, PARTITION, STAGE, TOPIC
from schemas.keys import version_of
from schemas.records import Received
from tests.simulation.actions import Submit
from tests.simulation.loop import Violation, at_once
from tests.simulation.places import MAX_TEXT_BYTES
from tests.simulation.ports import SimEmbedder
from topics.catalogue import DEAD_LETTER_SUFFIX, EMBEDDED, LOG, RESOLVED, SUBMITTED, WRITTEN

EPOCH = 1
EMBEDDING = "vector"
Version = tuple[str, int]
"""The key of a document (`collection/id`) and one of its versions."""


def place_of(record: Received) -> str:
    return f"{record.topic}/{record.partition}/{record.offset}"


_BY_THE_TABLE = f"{RefusedByLegacy.__module__}.{RefusedByLegacy.__qualname__}"


class Watch:
    """What was logged, resolved, embedded, written and published, by document, and how far each store came."""

    def __init__(
        self,
        bus: MemoryBus,
        legacy: Mapping[str, MemoryLegacy],
        vectors: MemoryVectorStore,
        embedder: SimEmbedder,
    ) -> None:
        self.bus, self.legacy, self.vectors, self.embedder = bus, legacy, vectors, embedder
        self.harmed = False
        self.submitted: dict[str, Submit] = {}
        self.logged: dict[str, list[Received]] = {}
        self.resolved: dict[Version, dict[str, Any]] = {}
        self.embedded: set[Version] = set()
        self.reported: dict[tuple[str, int, str], set[str]] = {}
        self.reported_for_rows: dict[str, set[tuple[int, str]]] = {}
        self.refused: set[str] = set()
        self.dead: dict[str, set[str]] = {}
        self.not_refreshed: set[str] = set()
        self.applied: set[Version] = set()
        self.newest: dict[str, int] = {}
        # Keys of rows that the application wrote with a version: that version proves nothing about the legacy writer.
        self.restored: set[str] = set()
        # Versions that reached a row with a copy of another document's row: they look the same as our own writes.
        self.copied: set[tuple[str, int | None]] = set()
        self._row_versions: dict[str, int] = {}
        self._legacy_versions: dict[str, int] = {}
        self._points: dict[tuple[str, int], int] = {}

    # Records

    def appended(self, record: Received) -> None:
        """Note a record that was appended to its topic."""
        topic = record.topic
        if topic.endswith(DEAD_LETTER_SUFFIX):
            place = "/".join(record.header(name) or "" for name in (TOPIC, PARTITION, OFFSET))
            self.dead.setdefault(record.header(STAGE) or "", set()).add(place)
            if record.header(STAGE) == "legacy" and record.header(ERROR_CLASS) != _BY_THE_TABLE:
                self.not_refreshed.add(place)  # the log refused the entry that should bring Qdrant back to the row
            return
        if topic == SUBMITTED or topic not in {LOG, RESOLVED, EMBEDDED, WRITTEN}:
            return
        event_id = record.header("ce_id") or ""
        if topic == LOG:
            self.logged.setdefault(event_id, []).append(record)
        elif topic == WRITTEN:
            self._reported(event_id, orjson.loads(record.value or b""))
        else:
            key, _, rest = event_id.rpartition("@")
            version = key, int(rest.partition("/")[0])
            if topic == EMBEDDED:
                self.embedded.add(version)
            else:
                self._resolved(version, orjson.loads(record.value or b""))

    def _reported(self, event_id: str, event: dict[str, Any]) -> None:
        if event["store"] is None:
            self.refused.add(event["cause"])
            return
        key = f"{event['collection']}/{event['id']}"
        self.reported.setdefault((key, event["version"], event["store"]), set()).add(event["outcome"])
        if event["store"] == "qdrant":
            self.reported_for_rows.setdefault(event["cause"], set()).add((event["version"], event["outcome"]))

    def _resolved(self, version: Version, event: dict[str, Any]) -> None:
        if UNAVAILABLE in ((event["content"] or {}).get("text") or {}).values():
            raise Violation(f"4: version {version} has a value that capture left out")
        before = self.resolved.setdefault(version, event)
        if before != event and not self.harmed:
            raise Violation(f"1: version {version} was resolved twice, and not the same")

    def is_too_long(self, version: Version) -> bool:
        """Return whether a version is too long for Qdrant, so that it only removes the document there."""
        text = (self.resolved[version]["content"] or {}).get("text") or {}
        return sum(len((value or "").encode()) for value in text.values()) > MAX_TEXT_BYTES

    def waits_for_its_row(self, version: Version) -> bool:
        """Return whether only the table knows the whole document, so that Qdrant gets the row as it is after the write.

        If the table has no column for the event's vector, the vector goes to Qdrant with the event.
        """
        event, table = self.resolved[version], self.legacy[version[0].partition("/")[0]].description
        brings_vector = table.embedding is None and (event["content"] or {}).get("embedding") is not None
        return not brings_vector and any(name != EMBEDDING for name in event.get("omitted", ()))

    # Effects

    def effect(self, collection: str, label: str, args: Sequence[Any], result: Any) -> None:
        """Check the stores after a call that changed them. Harmed stores are checked only after they are repaired."""
        if self.harmed:
            return
        if label == "table.apply":
            for change, outcome in zip(args[0], result, strict=True):
                key = f"{collection}/{change.id}"
                self._check_row(collection, key, change.id)
                if change.written is not None and outcome.verdict is LegacyVerdict.APPLIED:
                    self._check_applied(key, change.written, change.content)
        elif label == "vectors.write":
            ids = [document.id for document in args[1]]
            stored = at_once(self.vectors.stored(collection, ids, content=True))
            for document_id in ids:
                self._check_points(f"{collection}/{document_id}", stored.get(document_id, []))

    def _check_applied(self, key: str, version: int, content: Content | None) -> None:
        event = self.resolved.get((key, version))
        if event is None or event["origin"] != "producer":
            raise Violation(f"9: {key} was written with version {version}, which is no producer's")
        given = None if event["content"] is None else Content.model_validate_json(orjson.dumps(event["content"]))
        if given != content:
            raise Violation(f"9: {key} was written with other content than version {version} has")
        self.applied.add((key, version))

    def _check_row(self, collection: str, key: str, document_id: str) -> None:
        legacy = self.legacy[collection]
        ledger = legacy.ledger_rows.get(document_id, LedgerRow())
        if ledger.legacy_version < self._legacy_versions.get(key, 0):
            raise Violation(f"3: the legacy version of {key} went down")
        self._legacy_versions[key] = ledger.legacy_version
        row = legacy.stored.get(document_id)
        if row is not None and row.version is not None and key not in self.restored:
            if row.version < self._row_versions.get(key, 0):
                raise Violation(f"3: the version of the row {key} went down")
            self._row_versions[key] = row.version

    def _check_points(self, key: str, points: Sequence[StoredChunk]) -> None:
        for point in points:
            if point.version < self._points.get((key, point.chunk), -1):
                raise Violation(f"3: the version of point {key}#{point.chunk} went down")
            self._points[key, point.chunk] = point.version
        gone = [chunk for (other, chunk) in self._points if other == key and chunk not in {p.chunk for p in points}]
        if gone:
            raise Violation(f"3: point {key}#{gone[0]} is gone, and its version with it")
        newest = newest_version(points)
        visible = [point for point in points if not point.deleted]
        self.newest[key] = newest
        if any(point.version != newest for point in visible):
            raise Violation(f"5: visible chunks of {key} are of versions {sorted({p.version for p in points})}")
        event = self.resolved.get((key, newest))
        if event is None:
            raise Violation(f"3: Qdrant holds version {newest} of {key}, which was never resolved")
        content = None if event["content"] is None else Content.model_validate_json(orjson.dumps(event["content"]))
        texts = [] if content is None else [*self.embedder.chunks(content.full_text())]
        if content is not None and content.embedding is not None:
            texts = [content.full_text()]
        if self.is_too_long((key, newest)):
            texts = []
        if [point.text for point in visible] != texts:
            raise Violation(f"5: the visible chunks of {key} are not those of version {newest}")
        if any(point.tenant != (content.tenant if content else "") for point in visible):
            raise Violation(f"13: {key} is visible to another tenant than version {newest} has")

    # Commits

    def committed(self, role: str, record: Received) -> None:
        """Check that a record below a committed offset is finished."""
        place = place_of(record)
        if self.harmed or place in self.dead.get(role, ()) or self._finished(role, record, place):
            return
        raise Violation(f"2: {role} committed {place}, which is not finished")

    def _finished(self, role: str, record: Received, place: str) -> bool:
        if role == "capture" and record.value is None:
            return True
        if role in {"intake", "capture"}:
            return place in self.logged
        key = (record.key or b"").decode()
        name, _, document_id = key.partition("/")
        ledger = self.legacy[name].ledger_rows.get(document_id, LedgerRow())
        if role == "resolver":
            return ledger.state.version >= version_of(EPOCH, record.offset)
        event_id = record.header("ce_id") or ""
        version = int(event_id.rpartition("@")[2].partition("/")[0])
        qdrant = bool(self.reported.get((key, version, "qdrant")))
        if role == "legacy":
            producer = self.resolved[key, version]["origin"] == "producer"
            reported = not producer or bool(self.reported.get((key, version, "legacy")))
            return reported and ledger.legacy_version >= version
        if role == "embedder":
            return qdrant or (key, version) in self.embedded or self.waits_for_its_row((key, version))
        stored = at_once(self.vectors.stored(name, [document_id])).get(document_id, [])
        qdrant = qdrant or self.is_too_long((key, version))  # the embedder's dead letter reports it
        return qdrant and newest_version(stored) >= version
