"""Reads one document in every place. Reports a place that does not answer and reads the others. Changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from connectors.addresses import brokers_of
from connectors.debezium.changes import decode_capture, id_in_key
from connectors.errors import NotReady
from connectors.kafka.headers import partition_of
from connectors.kafka.offsets import KafkaOffsets
from connectors.kafka.reader import Finder, finder
from connectors.qdrant import open_vector_store
from connectors.sql.connector import LegacyConnector
from domain.fold import fold
from domain.ledger import LedgerRow
from domain.legacy import TableDescription
from domain.points import StoredChunk
from migration.context import now_ms
from migration.dead_letters.replays import Replays, replays_of
from migration.epochs import Epochs, epochs_of
from migration.inspect.document import Document, Entry, Letter, LogPart, Stores, Waiting
from migration.inspect.explain import LEDGER, LOG, POINTS, ROW, difference_of
from migration.lag import RoleReads, pipeline
from migration.observe import Databases, answered
from migration.rollout.states import recorded_state
from migration.state import CollectionState
from schemas.cloudevents import InvalidEvent, decode
from schemas.dead_letters import SUFFIX, read_dead_letter
from schemas.documents import DocumentChanged, DocumentEmbedded, DocumentResolved
from schemas.keys import document_key, epoch_and_offset, version_of
from schemas.records import Received, TopicPartition
from schemas.rollout import Phase
from schemas.settings import Settings
from topics.captures import Capture
from topics.catalogue import LOG as LOG_TOPIC
from topics.provisioning import REPLAYED, desired_topics

SEARCH_S = 10.0
_PLACE_S = 30.0
_KAFKA_S = 120.0
_SHOWN = 50
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many of the newest records of a partition are searched, and how long each search may take."""

    records: int = 50_000
    search_s: float = SEARCH_S


@dataclass(slots=True)
class _Known:
    """What the database knows of the collection. The places that are read after it need this."""

    quarantine: Any = None
    capture: Capture | None = None
    epochs: Epochs = field(default_factory=Epochs)
    model: int | None = None
    phase: Phase | None = None
    description: TableDescription | None = None
    unread: dict[str, str] = field(default_factory=dict)
    cut: dict[str, str] = field(default_factory=dict)


async def inspect(settings: Settings, home: Path, name: str, document_id: str, bounds: Bounds) -> Document:
    """Read a document in every place. Raises nothing if a place cannot be read: `unread` names it."""
    async with AsyncExitStack() as resources:
        databases = Databases(settings)
        resources.push_async_callback(databases.close)
        vectors = await open_vector_store(settings.qdrant, home)
        resources.push_async_callback(vectors.close)
        known = _Known()
        await _into(
            known.unread,
            "collection",
            databases.ask(name, lambda legacy: _read_state(legacy, settings, name, known)),
        )

        async def stores() -> Stores:
            ids = [document_id]
            row = await _into(known.unread, ROW, databases.ask(name, lambda legacy: legacy.table.rows(ids)))
            kept = await _into(known.unread, LEDGER, databases.ask(name, lambda legacy: legacy.ledger.read(ids)))
            points = await _into(known.unread, POINTS, vectors.stored(name, ids, content=True))
            return Stores((row or {}).get(document_id), (kept or {}).get(document_id), _points(points, document_id))

        collection = settings.collections[name]
        brings = collection.embedding is not None
        limit = settings.kafka.max_text_bytes
        phase = known.phase or collection.phase
        found = Document(name, document_id, phase, 0, await stores(), brings=brings, max_text_bytes=limit)
        kafka = _Kafka(settings, name, document_id, bounds, known)
        found = await kafka.read(found)
        if difference_of(found) is not None and not found.waiting:
            # A change that arrived between the two reads was in flight at the first, and no longer is at the second.
            found = replace(found, stores=await stores())
        return replace(
            found,
            now_ms=now_ms(),
            quarantine=known.quarantine,
            model=known.model,
            unread=known.unread,
            cut=known.cut,
        )


async def _into(unread: dict[str, str], place: str, work: Awaitable[T], limit_s: float = _PLACE_S) -> T | None:
    found, why = await answered(work, limit_s)
    if why is not None:
        unread[place] = why
    return found


async def _read_state(legacy: LegacyConnector, settings: Settings, name: str, known: _Known) -> None:
    known.description = legacy.table.description
    state = CollectionState(legacy.ledger, name)
    known.quarantine = await state.quarantine()
    known.capture = await state.capture(settings.kafka, settings.collections[name])
    known.epochs = await epochs_of([legacy.ledger])
    known.model = await state.model()
    rollout = await recorded_state(state)
    known.phase = rollout.phase if rollout is not None else None


class _Kafka:
    """The log entries, the records in flight, and the dead letters of one document."""

    def __init__(self, settings: Settings, name: str, document_id: str, bounds: Bounds, known: _Known) -> None:
        self._settings, self._bounds, self._known = settings, bounds, known
        self._key = document_key(name, document_id).encode()
        self._name, self._id = name, document_id
        self._captured = known.capture.topic if known.capture else ""
        self._reads = pipeline([self._captured] if self._captured else [])

    async def read(self, found: Document) -> Document:
        """Return the document with what the brokers know of it."""
        unread = self._known.unread
        bootstrap = self._settings.kafka.bootstrap
        if bootstrap is None:
            unread["kafka"] = "no brokers are known; set kafka.bootstrap, or run: crossfade up"
            return found
        in_kafka = await _into(unread, "kafka", self._in_kafka(bootstrap, found.stores), _KAFKA_S)
        return found if in_kafka is None else replace(found, log=in_kafka[0], waiting=in_kafka[1], letters=in_kafka[2])

    async def _in_kafka(
        self, bootstrap: str, stores: Stores
    ) -> tuple[LogPart | None, tuple[Waiting, ...], tuple[Letter, ...]]:
        offsets = KafkaOffsets(bootstrap, collection=self._name)
        try:
            async with finder(bootstrap) as search:
                unread = self._known.unread
                log = await _into(unread, LOG, self._log(offsets, search, stores))
                waiting = await _into(unread, "under way", self._waiting(offsets, search, stores.ledger or LedgerRow()))
                letters = await _into(unread, "dead letters", self._letters(offsets, search))
                return log, tuple(waiting or ()), tuple(letters or ())
        finally:
            await offsets.close()

    async def _log(self, offsets: KafkaOffsets, search: Finder, stores: Stores) -> LogPart:
        bounds = {place[1]: kept for place, kept in (await offsets.bounds([LOG_TOPIC])).items()}
        if not bounds:
            raise NotReady("There is no document log yet: no worker has run.")
        partition = partition_of(self._key, len(bounds))
        begin, end = bounds[partition]
        place = (LOG_TOPIC, partition)
        first = max(begin, end - self._bounds.records)
        tail = await search.search({place: (first, end)}, self._is_ours, self._bounds.search_s)
        records = list(tail.records)
        for offset in sorted(o for o in _named(stores, self._known.epochs.version) if begin <= o < first):
            records += (await search.search({place: (offset, offset + 1)}, self._is_ours, 2.0)).records
        cut = None
        if first > 0:
            cut = f"it begins at offset {first} (--log-records reads more)"
        if tail.unread:
            cut = f"the newest {tail.unread} records were not reached within {self._bounds.search_s:g} s"
        entries = self._entries(records, None if LEDGER in self._known.unread else stores.ledger or LedgerRow())
        return LogPart(partition, entries[-_SHOWN:], first, end, cut)

    def _entries(self, records: list[Received], ledger: LedgerRow | None) -> tuple[Entry, ...]:
        found: list[Entry] = []
        state = ledger.state if ledger else None
        for record in sorted(records, key=lambda record: record.offset):
            try:
                event, _ = decode(record, DocumentChanged)
            except InvalidEvent:
                continue
            version = version_of(self._known.epochs.version, record.offset)
            comes_to = None
            if state is not None and version > state.version:
                verdict, state = fold(state, version, event)
                comes_to = verdict.value
            found.append(_entry(record, version, event, comes_to))
        return tuple(found)

    async def _waiting(self, offsets: KafkaOffsets, search: Finder, ledger: LedgerRow) -> list[Waiting]:
        """Return the document's records between the committed offset of each role and the end of its topic.

        Roles commit only every second, so records that the ledger shows as done are left out.
        """
        found: list[Waiting] = []
        for reads in self._reads:
            bounds = await offsets.bounds(reads.topics)
            committed = await offsets.committed(reads.group)
            pieces = {place: (max(kept[0], committed.get(place, 0)), kept[1]) for place, kept in bounds.items()}
            pieces = self._newest(reads, pieces)
            ours = self._is_ours_captured if reads.role == "capture" else self._is_ours
            seen = await search.search(pieces, ours, self._bounds.search_s)
            if seen.unread:
                self._known.cut["under way"] = f"{seen.unread} records before {reads.role} were not read in time"
            found += [
                Waiting(reads.role, record.topic, record.partition, record.offset, record.timestamp_ms)
                for record in seen.records
                if not self._is_done(reads.role, record, ledger)
            ]
        return found

    def _is_done(self, role: str, record: Received, ledger: LedgerRow) -> bool:
        """Say whether the ledger shows that a role is done with a record."""
        try:
            if role == "intake":
                at = (record.partition, self._known.epochs.producer, record.offset)
                return any(one[0] == at[0] and one[1:] >= at[1:] for one in ledger.state.producer_positions)
            if role == "capture":
                return self._is_captured(record, ledger)
            if role == "resolver":
                return version_of(self._known.epochs.version, record.offset) <= ledger.state.version
            if role == "vector":
                return decode(record, DocumentEmbedded)[0].version <= ledger.vector_version
            done = ledger.legacy_version if role == "legacy" else ledger.vector_version
            return decode(record, DocumentResolved)[0].version <= done
        except InvalidEvent:
            return False

    def _is_captured(self, record: Received, ledger: LedgerRow) -> bool:
        if self._known.description is None or self._known.capture is None:
            return False
        settings = self._settings.collections[self._name]
        event = decode_capture(record, self._name, settings, self._known.description, self._known.capture.epoch)
        return event is None or event.position <= ledger.state.legacy_position

    def _newest(
        self, reads: RoleReads, pieces: Mapping[TopicPartition, tuple[int, int]]
    ) -> dict[TopicPartition, tuple[int, int]]:
        """Return the ranges that may hold the document, each cut to the bound. Its oldest records are kept."""
        if reads.role not in {"intake", "capture"} and pieces:
            own = partition_of(self._key, len(pieces))
            pieces = {place: piece for place, piece in pieces.items() if place[1] == own}
        cut = {}
        for place, (begin, end) in pieces.items():
            if end - begin > self._bounds.records:
                self._known.cut["under way"] = f"{end - begin} records before {reads.role}: only some were searched"
            cut[place] = (begin, min(end, begin + self._bounds.records))
        return cut

    async def _letters(self, offsets: KafkaOffsets, search: Finder) -> list[Letter]:
        names = {topic.name for topic in desired_topics(self._settings) if topic.name.endswith(SUFFIX)}
        bounds = await offsets.bounds({*names, self._captured + SUFFIX} if self._captured else names)
        pieces = {place: (max(begin, end - self._bounds.records), end) for place, (begin, end) in bounds.items()}
        if any(piece[0] > bounds[place][0] for place, piece in pieces.items()):
            self._known.cut["dead letters"] = f"only the newest {self._bounds.records} of a topic were searched"
        seen = await search.search(pieces, self._is_ours_anywhere, self._bounds.search_s)
        if seen.unread:
            self._known.cut["dead letters"] = f"{seen.unread} were not read in time"
        replays = bool(seen.records) and bool(await offsets.bounds([REPLAYED]))
        topics = {record.topic for record in seen.records}
        replayed = await replays_of(brokers_of(self._settings.kafka), topics) if replays else Replays()
        return [letter for record in seen.records if (letter := _letter(record, replayed)) is not None]

    def _is_ours(self, record: Any) -> bool:
        return bool(record.key == self._key)

    def _is_ours_anywhere(self, record: Any) -> bool:
        return self._is_ours(record) or (record.topic == self._captured + SUFFIX and self._is_ours_captured(record))

    def _is_ours_captured(self, record: Any) -> bool:
        """Say whether a Debezium record is about this document. Its key is a JSON object of the key columns."""
        if self._known.description is None or record.key is None:
            return False
        try:
            return id_in_key(record.key, self._known.description) == self._id
        except (InvalidEvent, RecursionError):
            return False


def _points(found: Mapping[str, list[StoredChunk]] | None, document_id: str) -> tuple[StoredChunk, ...]:
    return tuple((found or {}).get(document_id, ()))


def _named(stores: Stores, epoch: int) -> set[int]:
    """Return the log offsets of this partition epoch that the ledger, the row and the points name."""
    versions = {point.version for point in stores.points}
    if stores.row is not None and stores.row.version:
        versions.add(stores.row.version)
    ledger = stores.ledger
    if ledger is not None:
        versions |= {ledger.state.version, ledger.state.written, ledger.legacy_version, ledger.vector_version}
    return {offset for of, offset in map(epoch_and_offset, versions) if of == epoch}


def _entry(record: Received, version: int, event: DocumentChanged, comes_to: str | None) -> Entry:
    return Entry(
        record.partition,
        record.offset,
        version,
        event.origin,
        event.deleted,
        event.snapshot,
        event.incomplete,
        event.before_version,
        event.after_version,
        event.content_hash,
        record.timestamp_ms,
        comes_to,
    )


def _letter(record: Received, replays: Replays) -> Letter | None:
    try:
        letter = read_dead_letter(record)
    except InvalidEvent:
        return None
    error = letter.error_class.rpartition(".")[2]
    source = record.topic.removesuffix(SUFFIX)
    place = (source, record.partition, record.offset, letter.stage, error, letter.message, record.timestamp_ms)
    return Letter(*place, record in replays)
