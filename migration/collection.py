"""The ports of one collection: its stores, and for agents also its settings, model and searches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connectors.ports import BulkTable, Checksums, Embedder, Ledger, LegacyTable, SearchBackend, TaskStore
from connectors.vector_ports import VectorStore
from domain.legacy import TableDescription, waits_for_row
from domain.rollout.phases import PHASES, PhaseRules
from schemas.cloudevents import InvalidEvent
from schemas.documents import DocumentResolved
from schemas.rollout import Phase
from schemas.settings import Collection
from topics.captures import Capture


@dataclass(frozen=True, slots=True)
class CollectionStores:
    """The stores of one collection, as tasks see it.

    `dimension` is the length of its vectors. `model` is the CRC-32 of the model key that its points must carry, None if
    none is recorded. If `checksums` is None, every row is read. If `max_text_bytes` is None, no text is too long for
    Qdrant.
    """

    name: str
    table: LegacyTable
    bulk: BulkTable
    ledger: Ledger
    vectors: VectorStore
    dimension: int
    model: int | None = None
    tasks: TaskStore | None = None
    checksums: Checksums | None = None
    max_text_bytes: int | None = None

    @property
    def description(self) -> TableDescription:
        """The columns of the table, by their use."""
        return self.table.description


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionPorts(CollectionStores):
    """One collection as the agents see it: its stores, settings, embedder and search backends.

    `capture` is None for a collection that was never captured. `moved_to` is its phase, None while its rollout has not
    begun. If it is `suspended`, Qdrant is not written, whatever the phase.
    """

    settings: Collection
    embedder: Embedder
    text_search: SearchBackend
    vector_search: SearchBackend | None = None
    capture: Capture | None = None
    moved_to: Phase | None = None
    suspended: bool = False

    @property
    def source_epoch(self) -> int:
        """The source epoch in which the collection is captured."""
        return self.capture.epoch if self.capture else 1

    @property
    def phase(self) -> Phase:
        """The collection's phase: that of its rollout, or else the one in which the configuration begins it."""
        return self.moved_to or self.settings.phase

    @property
    def effective_phase(self) -> Phase:
        """The phase by which the collection is served: `off` while it is suspended."""
        return "off" if self.suspended else self.phase

    @property
    def rules(self) -> PhaseRules:
        """What the collection's phase allows."""
        return PHASES[self.effective_phase]

    def waits_for_row(self, event: DocumentResolved) -> bool:
        """Say whether the outcome of an event in Qdrant is the outcome of the row that follows its write."""
        return waits_for_row(event, self.table.description, self.rules, self.embedder.dimension)


Collections = Mapping[str, CollectionPorts]


def collection_of(collections: Collections, name: str) -> CollectionPorts:
    """Return the ports of a collection. Raises InvalidEvent if its name is not configured."""
    try:
        return collections[name]
    except KeyError:
        raise InvalidEvent(f"unknown collection {name!r}: it is not in the configuration") from None
