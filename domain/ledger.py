"""One row of the ledger: the fold's state and the progress of the writers. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field

from domain.fold import LedgerState


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """The ledger's record of a document, which the legacy database keeps next to the document's row.

    `chunk_count` is the number of live chunks of `vector_version`. `refused_version` is a version that the legacy store
    refused and whose dead letter and refresh entry are not confirmed yet (0: none).
    """

    state: LedgerState = field(default_factory=LedgerState)
    legacy_version: int = 0
    refused_version: int = 0
    vector_version: int = 0
    content_hash: str | None = None
    chunk_count: int | None = None
    embedding_model: str | None = None


@dataclass(frozen=True, slots=True)
class VectorMark:
    """What the vector writer did for a document; the ledger takes it if its own `vector_version` is lower."""

    id: str
    version: int
    content_hash: str | None
    chunk_count: int
    embedding_model: str
