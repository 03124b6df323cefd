"""Reads dead letters and replays each once."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from connectors.kafka import reader
from connectors.kafka.admin import partition_counts, topic_names
from connectors.kafka.headers import partition_of
from connectors.ports import Bus
from migration.dead_letters.replays import Replays, replays_of
from migration.dead_letters.superseded import Newer, Subject, in_order, newer_than, older_letters, record_of, subject_of
from migration.epochs import Epochs
from schemas.cloudevents import InvalidEvent, decode, encode
from schemas.dead_letters import SUFFIX, DeadLetter, read_dead_letter
from schemas.documents import DocumentChanged, DocumentResolved, DocumentSubmitted
from schemas.keys import document_key, epoch_and_offset
from schemas.records import Outgoing, Received, size_of
from schemas.settings import Collection, Settings
from topics.catalogue import LOG, RESOLVED, SUBMITTED
from topics.provisioning import desired_topics

SOURCE = "crossfade/dlt-replay"
_BATCH = 100
_BATCH_BYTES = 8 * 1024 * 1024
_NOT_FORCED = "its content cannot be a change of its own; `crossfade verify --repair` brings what the table holds"
Captured = Callable[[DeadLetter], Awaitable[DocumentChanged | None]]
"""Reads the captured change of a letter. None for a letter that is not one, or cannot be read."""
KnownEpochs = Callable[[], Awaitable[Epochs]]


_NO_COLLECTIONS: Mapping[str, Collection] = MappingProxyType({})


async def _nothing_captured(_: DeadLetter) -> DocumentChanged | None:
    return None


async def _first_epochs() -> Epochs:
    return Epochs()


@dataclass(frozen=True, slots=True)
class Selection:
    """The dead letters to take: those of the source topics, optionally only of one partition or at one offset.

    Partition and offset are those in the dead-letter topic. `again` includes letters that were replayed before.
    """

    topics: tuple[str, ...]
    partition: int | None = None
    offset: int | None = None
    again: bool = False

    def takes(self, record: Received) -> bool:
        """Say whether a record of a dead-letter topic is selected."""
        return self.partition in {None, record.partition} and self.offset in {None, record.offset}


State = Literal["published", "superseded", "unusable"]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A dead letter, what became of it, and the topic to which its record went.

    `topic`, `partition` and `offset` are the position of the letter in its dead-letter topic. `superseded`: newer
    content of its document was accepted since (`newer`), or another letter is newer. With both `published` and `newer`,
    the letter was forced over the newer content. An `unusable` letter has no record that could be published.
    """

    topic: str
    partition: int
    offset: int
    published_to: str
    state: State = "published"
    why: str = ""
    newer: Newer | None = None


async def sources(bootstrap: str, settings: Settings) -> tuple[str, ...]:
    """Return the configured topics whose dead-letter topic exists."""
    existing = await topic_names(bootstrap)
    names = [topic.name for topic in desired_topics(settings, existing) if topic.name.endswith(SUFFIX)]
    there = set(existing)
    return tuple(name.removesuffix(SUFFIX) for name in names if name in there)


async def letters(bootstrap: str, topic: str) -> AsyncIterator[DeadLetter]:
    """Yield the dead letters of a topic. Skip records that are not dead letters of crossfade."""
    async for record in reader.read_topic(bootstrap, topic + SUFFIX):
        try:
            yield read_dead_letter(record)
        except InvalidEvent:
            continue


def replay_of(letter: DeadLetter, now_ms: int, collections: Mapping[str, Collection] = _NO_COLLECTIONS) -> Outgoing:
    """Return the record to publish for a dead letter.

    This is the original record, except for a producer's version that a store could not take. That version is old by
    now, and the ledger guard would treat it as superseded, so its content is submitted as a new change. What the
    producer left out is left out again: `collections` has the names of the tenant and embedding columns.
    """
    if letter.original.topic != RESOLVED:
        return letter.original
    original = letter.original
    try:
        resolved, _ = decode(record_of(letter), DocumentResolved)
    except InvalidEvent:
        return original
    return _submission(letter, resolved, now_ms, collections) if resolved.origin == "producer" else original


def _submission(
    letter: DeadLetter,
    resolved: DocumentResolved | DocumentChanged,
    now_ms: int,
    collections: Mapping[str, Collection],
) -> Outgoing:
    content = resolved.content
    given: dict[str, Any] = {"text": ""}
    if content is not None:
        given = {"tenant": content.tenant, "text": dict(content.text), "metadata": dict(content.metadata)}
        given["embedding"] = _floats(content.embedding) if content.embedding else None
        if content.embedding_model:
            given["embedding_model"] = content.embedding_model
        columns = collections.get(resolved.collection)
        if columns is not None and columns.tenant in resolved.omitted:
            del given["tenant"]
        if columns is not None and columns.embedding is not None and columns.embedding.column in resolved.omitted:
            del given["embedding"]
    event = DocumentSubmitted(collection=resolved.collection, id=resolved.id, **given)
    record = encode(
        event,
        topic=SUBMITTED,
        key=document_key(resolved.collection, resolved.id),
        event_id=f"replay/{letter.letter.place}",
        source=SOURCE,
        time_ms=now_ms,
    )
    if content is None or resolved.deleted:
        return record._replace(value=None)
    return record._replace(value=event.model_dump_json(exclude_unset=True).encode())


def _floats(packed: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(packed) // 4}f", packed))


async def forced(
    bootstrap: str, letter: DeadLetter, now_ms: int, collections: Mapping[str, Collection], epochs: Epochs
) -> Outgoing | None:
    """Return a letter's content as a new change to a document that has newer content; None if it cannot be one.

    A captured change cannot be one: the table holds the newer content. Nor can a change of an earlier log, because that
    log is gone.
    """
    if letter.original.topic == SUBMITTED:
        return letter.original
    subject = subject_of(letter)
    if subject is None or subject.version is None:
        return None
    epoch, offset = epoch_and_offset(subject.version)
    if epoch != epochs.version:
        return None
    partitions = (await partition_counts(bootstrap, [LOG])).get(LOG, 1)
    record = await reader.record_at(bootstrap, LOG, partition_of(subject.key, partitions), offset)
    if record is None or record.key != subject.key:
        return None
    changed, _ = decode(record, DocumentChanged)
    return _submission(letter, changed, now_ms, collections) if changed.deleted or changed.content else None


async def replay(
    bootstrap: str,
    bus: Bus,
    selection: Selection,
    *,
    now_ms: int,
    dry_run: bool,
    force: bool = False,
    captured: Captured = _nothing_captured,
    collections: Mapping[str, Collection] = _NO_COLLECTIONS,
    known_epochs: KnownEpochs = _first_epochs,
) -> list[Replayed]:
    """Publish the selected dead letters in the order of their offsets and mark them; return what became of each.

    Several letters of one document are published in the order of their changes. A letter is left out if newer content
    of its document was accepted; `force` makes the letter a new change. A letter is marked after the brokers
    acknowledged its record. If a run ends in between, the next run publishes the letter again; two runs at the same
    time publish it twice. `captured` reads a captured change. `known_epochs` returns the epochs of the log and of the
    submitted topic.
    """
    done: list[Replayed] = []
    replays = await replays_of(bootstrap, [topic + SUFFIX for topic in selection.topics])
    subjects = [
        subject
        async for letter in _chosen(bootstrap, selection, replays)
        if _unusable(letter) is None
        and (subject := subject_of(letter, await captured(letter), collections)) is not None
    ]
    epochs = await known_epochs() if subjects else Epochs()
    newer = await newer_than(bootstrap, subjects, epochs)
    left = [one for one in subjects if force or one.letter not in newer]
    older = older_letters(left)
    ordered = in_order(one for one in left if one.letter not in older)
    # A copy from when the facts were gathered: publishing changes the marks.
    before = replays.copy()
    batch: list[tuple[Replayed, Outgoing]] = []
    size = 0
    async for letter in _ordered(bootstrap, selection, before, ordered):
        at = letter.letter
        place = (at.topic, at.partition, at.offset)
        outgoing: Outgoing | None = None
        if (why := _unusable(letter)) is not None:
            done.append(Replayed(*place, "", "unusable", why))
        elif place in older:
            by = "/".join(map(str, older[place].letter))
            done.append(Replayed(*place, "", "superseded", f"a newer letter of the document: {by}"))
        elif place not in newer:
            outgoing = replay_of(letter, now_ms, collections)
        elif force:
            outgoing = await forced(bootstrap, letter, now_ms, collections, epochs)
            if outgoing is None:
                done.append(Replayed(*place, "", "superseded", _NOT_FORCED, newer[place]))
        else:
            done.append(Replayed(*place, "", "superseded", _why(newer[place]), newer[place]))
        if outgoing is None:
            continue
        over = newer.get(place)
        batch.append((Replayed(*place, outgoing.topic, why=_why(over) if over else "", newer=over), outgoing))
        size += size_of(outgoing)
        if len(batch) == _BATCH or size > _BATCH_BYTES:
            done += await _publish(bus, batch, replays, dry_run)
            batch, size = [], 0
    return done + await _publish(bus, batch, replays, dry_run)


async def _chosen(bootstrap: str, selection: Selection, replays: Replays) -> AsyncIterator[DeadLetter]:
    for topic in selection.topics:
        async for letter in letters(bootstrap, topic):
            if selection.takes(letter.letter) and (selection.again or letter.letter not in replays):
                yield letter


async def _ordered(
    bootstrap: str,
    selection: Selection,
    replays: Replays,
    several: Sequence[Subject],
) -> AsyncIterator[DeadLetter]:
    """Yield the chosen letters. Those of documents with several letters come last, in the given order."""
    later = {one.letter for one in several}
    async for letter in _chosen(bootstrap, selection, replays):
        if (letter.letter.topic, letter.letter.partition, letter.letter.offset) not in later:
            yield letter
    for one in several:
        record = await reader.record_at(bootstrap, *one.letter)
        if record is not None:
            yield read_dead_letter(record)


def _unusable(letter: DeadLetter) -> str | None:
    if letter.unread:
        return f"{letter.unread} records that could not be read: publish them again from where they came from"
    if letter.cut:
        return f"kept cut ({', '.join(letter.cut)}): publish the record again from where it came from"
    return None


def _why(newer: Newer) -> str:
    what = "a deletion" if newer.deleted else "newer content"
    waits = ", waiting to be taken" if newer.waits else ""
    return f"{what} by {newer.origin} at {newer.topic}/{newer.partition}/{newer.offset}{waits}"


async def _publish(
    bus: Bus, batch: Sequence[tuple[Replayed, Outgoing]], replays: Replays, dry_run: bool
) -> list[Replayed]:
    steps = [step for step, _ in batch]
    if dry_run or not batch:
        return steps
    for step in steps:
        replays.add(step.topic, step.partition, step.offset)
    await bus.publish([outgoing for _, outgoing in batch])
    await bus.publish([replays.record(*at) for at in sorted({(step.topic, step.partition) for step in steps})])
    return steps
