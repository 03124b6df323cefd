"""Finds content that was accepted for a document after one of its dead letters, in the log and in waiting submissions.

If a letter has a version, log entries of a higher version are newer. Else, an entry made from a record of the letter's
own partition is newer if that record is later; any other entry is newer if it was written later. All records of a
recreated topic are later than those of the topic before, as its epoch shows. Echoes of crossfade's own writes, and rows
that were read again after a refusal, are not newer content. An older letter is left out for a newer one only if the
newer one names all of its columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from connectors.kafka import offsets, reader
from connectors.kafka.headers import partition_of
from domain.fold import is_echo
from domain.submission import named_columns, omitted_by
from migration.epochs import Epochs
from schemas.cloudevents import InvalidEvent, decode, unwrap
from schemas.dead_letters import DeadLetter
from schemas.documents import DocumentChanged, DocumentEmbedded, DocumentResolved, DocumentSubmitted
from schemas.keys import FIRST_EPOCH, document_key, epoch_and_offset, parse_key, version_of
from schemas.records import Received
from schemas.settings import Collection
from topics.catalogue import EMBEDDED, LOG, RESOLVED, SUBMITTED, group_of

Place = tuple[str, int, int]
"""A topic, a partition and an offset."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a letter is about: a document, by its key in the log, and the letter's position in time.

    `source` is the position of the record that became a letter, in the given `epoch` of its topic. `version` is that of
    its change, if the change reached the log. `names` has the columns that it names, None for a whole document or a
    deletion.
    """

    letter: Place
    source: Place
    key: bytes
    time_ms: int
    version: int | None = None
    names: frozenset[str] | None = None
    epoch: int = FIRST_EPOCH

    @property
    def chain(self) -> tuple[bytes | str | int, ...]:
        """The sequence in which `link` gives the order of letters: the log, or a partition of another topic."""
        return (self.key,) if self.version is not None else (self.key, *self.source[:2])

    @property
    def link(self) -> tuple[int, int]:
        """The position in the chain."""
        return (self.version, 0) if self.version is not None else (self.epoch, self.source[2])

    def covers(self, older: Subject) -> bool:
        """Say whether this letter would overwrite everything of an older one."""
        return self.names is None or (older.names is not None and older.names <= self.names)


@dataclass(frozen=True, slots=True)
class Newer:
    """What was accepted after a letter: an entry of the log or, with `waits`, a submission that is not taken yet."""

    topic: str
    partition: int
    offset: int
    origin: str
    deleted: bool
    time_ms: int
    waits: bool = False


def record_of(letter: DeadLetter) -> Received:
    """Return the record that became a letter, at its original position."""
    original = letter.original
    return Received(original.topic, letter.partition, letter.offset, original.key, original.value, original.headers)


def subject_of(
    letter: DeadLetter,
    changed: DocumentChanged | None = None,
    collections: Mapping[str, Collection] = MappingProxyType({}),
) -> Subject | None:
    """Return the subject of a letter, None if it cannot be determined. `changed` is a captured change that was read."""
    record = record_of(letter)
    event: _Event | None = changed
    try:
        if record.topic == SUBMITTED:
            key, event = _submitted(record)
        elif event is not None or record.topic in _VERSIONED:
            event = event or decode(record, _VERSIONED[record.topic])[0]
            key = document_key(event.collection, event.id)
        else:
            return None
        version = version_of(letter.epoch, letter.offset) if record.topic == LOG else getattr(event, "version", None)
    except (InvalidEvent, ValueError):
        return None
    at = letter.letter
    place = (at.topic, at.partition, at.offset)
    source = (record.topic, letter.partition, letter.offset)
    time_ms = min(letter.time_ms or at.timestamp_ms, at.timestamp_ms)
    return Subject(place, source, key.encode(), time_ms, version, _names(event, collections), letter.epoch)


def _names(event: _Event | None, collections: Mapping[str, Collection]) -> frozenset[str] | None:
    """Return the columns that an event names. None means all: for a deletion, or if the collection is not known."""
    collection = None if event is None else collections.get(event.collection)
    if event is None or collection is None or getattr(event, "deleted", False):
        return None
    if isinstance(event, DocumentSubmitted):
        brings_vector = event.embedding is not None
        return named_columns(collection, omitted_by(event, collection), brings_vector=brings_vector)
    if isinstance(event, DocumentEmbedded):
        omitted = tuple(name for name in collection.metadata if name not in event.metadata)
        return named_columns(collection, omitted, brings_vector=True)
    if isinstance(event, DocumentChanged) and _brings_nothing_new(event):
        return frozenset()
    brings_vector = event.content is not None and event.content.embedding is not None
    return named_columns(collection, event.omitted, brings_vector=brings_vector)


_Event = DocumentSubmitted | DocumentChanged | DocumentResolved | DocumentEmbedded
_VERSIONED: Mapping[str, type[DocumentChanged] | type[DocumentResolved] | type[DocumentEmbedded]] = {
    LOG: DocumentChanged,
    RESOLVED: DocumentResolved,
    EMBEDDED: DocumentEmbedded,
}


def _submitted(record: Received) -> tuple[str, DocumentSubmitted | None]:
    """Return the key of a submission's document, and the event, None for a deletion.

    Raises InvalidEvent, ValueError.
    """
    _, data = unwrap(record)
    if data is None:
        return document_key(*parse_key(record.key or b"")), None
    submitted, _ = decode(record, DocumentSubmitted)
    return document_key(submitted.collection, submitted.id), submitted


def _brings_nothing_new(entry: DocumentChanged) -> bool:
    return bool(entry.rejects) or (entry.origin == "legacy" and is_echo(entry))


def is_newer(subject: Subject, record: Received, entry: DocumentChanged, epochs: Epochs) -> bool:
    """Say whether a log entry of the subject's document was accepted after the letter."""
    if _brings_nothing_new(entry):
        return False
    if subject.version is not None:
        return version_of(epochs.version, record.offset) > subject.version
    topic, _, place = (record.header("ce_id") or "").rpartition("/")
    topic, _, partition = topic.rpartition("/")
    if (topic, partition) == (subject.source[0], str(subject.source[1])) and place.isdigit():
        epoch = entry.position[0] if entry.origin == "producer" and entry.position else subject.epoch
        return (epoch, int(place)) > subject.link
    return record.timestamp_ms > subject.time_ms


def older_letters(subjects: Iterable[Subject]) -> dict[Place, Subject]:
    """Return the letters that a newer letter overwrites, each with the newest letter that names all of its columns.

    A letter that names a column which no newer letter names is not among them: both are published, in order.
    """
    by_key: dict[bytes, list[Subject]] = {}
    for subject in reversed(_oldest_first(subjects)):
        by_key.setdefault(subject.key, []).append(subject)
    found: dict[Place, Subject] = {}
    for each in by_key.values():
        for number, subject in enumerate(each):
            covering = next((newer for newer in each[:number] if newer.covers(subject)), None)
            if covering is not None:
                found[subject.letter] = covering
    return found


def in_order(subjects: Iterable[Subject]) -> list[Subject]:
    """Return the letters of documents that have several, the oldest first."""
    ordered = _oldest_first(subjects)
    several = Counter(subject.key for subject in ordered)
    return [subject for subject in ordered if several[subject.key] > 1]


def _oldest_first(subjects: Iterable[Subject]) -> list[Subject]:
    """Sort letters by position if positions can be compared, else by time. The clocks of producers may be wrong."""
    chains: dict[tuple[bytes | str | int, ...], list[Subject]] = {}
    for subject in subjects:
        chains.setdefault(subject.chain, []).append(subject)
    timed: list[tuple[int, Subject]] = []
    for chain in chains.values():
        latest_ms = 0
        for subject in sorted(chain, key=lambda one: one.link):
            latest_ms = max(latest_ms, subject.time_ms)
            timed.append((latest_ms, subject))
    return [subject for _, subject in sorted(timed, key=lambda one: one[0])]


async def newer_than(bootstrap: str, subjects: Iterable[Subject], epochs: Epochs) -> dict[Place, Newer]:
    """Return the newest content for each letter whose document has newer content. Raises as `reader.read_topic`.

    `epochs` has the current epochs of the log and of the submitted topic.
    """
    by_key: dict[bytes, list[Subject]] = {}
    for subject in subjects:
        by_key.setdefault(subject.key, []).append(subject)
    found: dict[Place, Newer] = {}
    if by_key:
        await _in_the_log(bootstrap, by_key, found, epochs)
        await _waiting(bootstrap, by_key, found, epochs)
    return found


async def _in_the_log(
    bootstrap: str, by_key: Mapping[bytes, list[Subject]], found: dict[Place, Newer], epochs: Epochs
) -> None:
    ends = (await offsets.end_offsets(bootstrap, [LOG]))[LOG]
    starts = dict(ends)
    untimed = [one for each in by_key.values() for one in each if one.version is None]
    if untimed:
        earliest = min(one.time_ms for one in untimed)
        since = await offsets.offsets_at(bootstrap, LOG, earliest)
        for one in untimed:
            partition = partition_of(one.key, len(ends))
            starts[partition] = min(starts[partition], since.get(partition, ends[partition]))
    for one in (one for each in by_key.values() for one in each if one.version is not None):
        partition = partition_of(one.key, len(ends))
        epoch, offset = epoch_and_offset(one.version or 0)
        starts[partition] = min(starts[partition], offset + 1 if epoch == epochs.version else 0)
    async for record in reader.read_topic(bootstrap, LOG, start=starts):
        for subject in by_key.get(record.key or b"", ()):
            try:
                entry, _ = decode(record, DocumentChanged)
            except InvalidEvent:
                continue
            if is_newer(subject, record, entry, epochs):
                at = (LOG, record.partition, record.offset)
                found[subject.letter] = Newer(*at, entry.origin, entry.deleted, record.timestamp_ms)


async def _waiting(
    bootstrap: str, by_key: Mapping[bytes, list[Subject]], found: dict[Place, Newer], epochs: Epochs
) -> None:
    """Add the submissions that intake has not taken yet: they will be newer than what is replayed before them."""
    lags = await offsets.group_lag(bootstrap, group_of("intake"), [SUBMITTED])
    starts = {lag.partition: lag.end - lag.lag for lag in lags}
    async for record in reader.read_topic(bootstrap, SUBMITTED, start=starts):
        try:
            key = _submitted(record)[0].encode()
        except (InvalidEvent, ValueError):
            continue
        for subject in by_key.get(key, ()):
            same = (record.topic, record.partition) == subject.source[:2]
            if same and (epochs.producer, record.offset) <= subject.link:
                continue
            at = (SUBMITTED, record.partition, record.offset)
            found[subject.letter] = Newer(*at, "producer", record.value is None, record.timestamp_ms, waits=True)
