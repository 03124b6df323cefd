"""What a handler receives and returns: messages with their traces, and the failures among them. Values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from connectors.ports import Embedder, Ledger, LegacyTable, SearchBackend, VectorStore
from connectors.telemetry import Telemetry, Trace
from domain.keys import FIRST_EPOCH
from domain.legacy import waits_for_row
from domain.phases import PHASES, PhaseRules
from schemas.cloudevents import InvalidEvent
from schemas.documents import DocumentResolved
from schemas.records import Received
from schemas.settings import Collection, Kafka
from topics.captures import Capture
from topics.catalogue import LOG, SUBMITTED

Clock = Callable[[], int]
"""Milliseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Message:
    """One received record and its trace."""

    record: Received
    trace: Trace = field(default_factory=Trace)


@dataclass(frozen=True, slots=True)
class Failure:
    """A message that its handler could not use for a reason that will not pass; it goes to the dead-letter topic."""

    message: Message
    error: Exception


@dataclass(frozen=True, slots=True)
class CollectionPorts:
    """One collection as the agents see it: its settings and what they may call for it.

    `capture` is None for one that was never captured.
    """

    name: str
    settings: Collection
    table: LegacyTable
    ledger: Ledger
    vectors: VectorStore
    embedder: Embedder
    text_search: SearchBackend
    vector_search: SearchBackend | None = None
    capture: Capture | None = None

    @property
    def source_epoch(self) -> int:
        """The source epoch in which it is captured."""
        return self.capture.epoch if self.capture else 1

    @property
    def rules(self) -> PhaseRules:
        """What the collection's phase allows."""
        return PHASES[self.settings.phase]

    def waits_for_row(self, event: DocumentResolved) -> bool:
        """Say whether the outcome of an event in Qdrant is that of the row which follows its write."""
        return waits_for_row(event, self.table.description, self.rules, self.embedder.dimension)


Collections = Mapping[str, CollectionPorts]
Batch = Sequence[Message]
Failures = list[Failure]


def collection_of(collections: Collections, name: str) -> CollectionPorts:
    """Return a collection's ports. Raises InvalidEvent for a name that is not configured."""
    try:
        return collections[name]
    except KeyError:
        raise InvalidEvent(f"unknown collection {name!r}: it is not in the configuration") from None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every handler may need beside its ports: a clock, the epochs of log and submitted, counters, and bounds.

    `kafka` has the limits of records, by topic.
    """

    clock: Clock
    epoch: int
    telemetry: Telemetry
    max_text_bytes: int = 1024 * 1024
    kafka: Kafka = field(default_factory=Kafka)
    producer_epoch: int = FIRST_EPOCH

    def epoch_of(self, topic: str) -> int:
        """Return the epoch of a topic: those of other topics' records are in the events, or in the topic's name."""
        return self.epoch if topic == LOG else self.producer_epoch if topic == SUBMITTED else FIRST_EPOCH
