"""Reads and replays dead letters. What was replayed is remembered in a compacted topic, one record a partition."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from connectors.errors import Misconfigured
from connectors.kafka import tail
from connectors.kafka.admin import partition_counts
from connectors.ports import Bus
from domain.keys import document_key
from operations.replay_marks import ReplayMarks
from schemas.cloudevents import InvalidEvent, decode, encode
from schemas.dead_letters import SUFFIX, DeadLetter, read_dead_letter
from schemas.documents import DocumentResolved, DocumentSubmitted
from schemas.records import Outgoing, Received, size_of
from schemas.settings import Settings
from topics.catalogue import RESOLVED, SUBMITTED
from topics.provisioning import REPLAYED, desired_topics

SOURCE = "crossfade/dlt-replay"
_BATCH = 100
_BATCH_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters: of the topics (sources), and where given only of that partition or at that offset.

    Partition and offset are those in the dead-letter topic. `again` takes those that were replayed before, too.
    """

    topics: tuple[str, ...]
    partition: int | None = None
    offset: int | None = None
    again: bool = False

    def takes(self, record: Received) -> bool:
        """Say whether a record of a dead-letter topic is meant."""
        return self.partition in {None, record.partition} and self.offset in {None, record.offset}


@dataclass(frozen=True, slots=True)
class Replayed:
    """A dead letter by its place in the dead-letter topic, and the topic that its record went to."""

    topic: str
    partition: int
    offset: int
    published_to: str


async def sources(bootstrap: str, settings: Settings) -> tuple[str, ...]:
    """Return the topics of these settings whose dead-letter topic exists."""
    names = [topic.name for topic in desired_topics(settings) if topic.name.endswith(SUFFIX)]
    there = await partition_counts(bootstrap, names)
    return tuple(name.removesuffix(SUFFIX) for name in names if name in there)


async def letters(bootstrap: str, topic: str) -> AsyncIterator[DeadLetter]:
    """Yield the dead letters of a topic; a record that is none (somebody else's) is passed over."""
    async for record in tail.read_topic(bootstrap, topic + SUFFIX):
        try:
            yield read_dead_letter(record)
        except InvalidEvent:
            continue


async def marks_of(bootstrap: str) -> dict[tuple[str, int], ReplayMarks]:
    """Return what was replayed, by dead-letter topic and partition."""
    found: dict[tuple[str, int], ReplayMarks] = {}
    async for record in tail.read_topic(bootstrap, REPLAYED):
        topic, _, partition = (record.key or b"").decode().rpartition("/")
        try:
            found[topic, int(partition)] = ReplayMarks.decode(record.value or b"")
        except ValueError as error:
            raise Misconfigured(f"{REPLAYED}/{record.partition}/{record.offset}: {error}") from error
    return found


def replay_of(letter: DeadLetter, now_ms: int) -> Outgoing:
    """Return what to publish for a dead letter.

    The record as it was, except for a producer's version that a store could not take: its version is old by now and
    would be superseded by the ledger guard, so its content is submitted as a new change.
    """
    if letter.original.topic != RESOLVED:
        return letter.original
    original = letter.original
    record = Received(original.topic, letter.partition, letter.offset, original.key, original.value, original.headers)
    try:
        resolved, _ = decode(record, DocumentResolved)
    except InvalidEvent:
        return original
    return _submission(letter, resolved, now_ms) if resolved.origin == "producer" else original


def _submission(letter: DeadLetter, resolved: DocumentResolved, now_ms: int) -> Outgoing:
    content = resolved.content
    event = DocumentSubmitted(
        collection=resolved.collection,
        id=resolved.id,
        tenant=content.tenant if content else "default",
        text=dict(content.text) if content else "",
        metadata=dict(content.metadata) if content else {},
        embedding=_floats(content.embedding) if content and content.embedding else None,
        embedding_model=content.embedding_model if content else None,
    )
    record = encode(
        event,
        topic=SUBMITTED,
        key=document_key(resolved.collection, resolved.id),
        event_id=f"replay/{letter.letter.topic}/{letter.letter.partition}/{letter.letter.offset}",
        source=SOURCE,
        time_ms=now_ms,
    )
    return record if content and not resolved.deleted else record._replace(value=None)


def _floats(packed: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(packed) // 4}f", packed))


async def replay(bootstrap: str, bus: Bus, selection: Selection, *, now_ms: int, dry_run: bool) -> list[Replayed]:
    """Publish the selected dead letters in the order of their offsets and remember them; return which they were.

    A letter is remembered after the brokers acknowledged its record: ended in between, it is published again by the
    next run, as it is by two runs at the same time.
    """
    done: list[Replayed] = []
    marks = await marks_of(bootstrap)
    for topic in selection.topics:
        batch: list[tuple[Replayed, Outgoing]] = []
        size = 0
        async for letter in letters(bootstrap, topic):
            at = letter.letter
            known = marks.get((at.topic, at.partition), ReplayMarks())
            if not selection.takes(at) or (at.offset in known and not selection.again):
                continue
            outgoing = replay_of(letter, now_ms)
            batch.append((Replayed(at.topic, at.partition, at.offset, outgoing.topic), outgoing))
            size += size_of(outgoing)
            if len(batch) == _BATCH or size > _BATCH_BYTES:
                done += await _publish(bus, batch, marks, dry_run)
                batch, size = [], 0
        done += await _publish(bus, batch, marks, dry_run)
    return done


async def _publish(
    bus: Bus, batch: Sequence[tuple[Replayed, Outgoing]], marks: dict[tuple[str, int], ReplayMarks], dry_run: bool
) -> list[Replayed]:
    steps = [step for step, _ in batch]
    if dry_run or not batch:
        return steps
    changed: set[tuple[str, int]] = set()
    for step in steps:
        at = (step.topic, step.partition)
        marks[at] = marks.get(at, ReplayMarks()).add(step.offset)
        changed.add(at)
    await bus.publish([outgoing for _, outgoing in batch])
    await bus.publish([_mark(at, marks[at]) for at in sorted(changed)])
    return steps


def _mark(at: tuple[str, int], marks: ReplayMarks) -> Outgoing:
    return Outgoing(REPLAYED, f"{at[0]}/{at[1]}".encode(), marks.encode())
