"""Events of a document on its way through the pipeline, in the order in which they happen. Data only, no behaviour."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.content import TENANT_CHARACTERS, Content, Scalar
from schemas.keys import ID_CHARACTERS

CollectionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
DocumentId = Annotated[str, Field(min_length=1, max_length=ID_CHARACTERS)]
Tenant = Annotated[str, Field(min_length=1, max_length=TENANT_CHARACTERS)]
Origin = Literal["producer", "legacy", "refresh"]
Position = tuple[int, ...]


class Event(BaseModel):
    """Base class of every event: immutable, with its CloudEvents type."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_bytes="base64", val_json_bytes="base64")

    ce_type: ClassVar[str]


class DocumentSubmitted(Event):
    """A producer's request to store a document. A record without a value requests its deletion.

    `text` is a string for a collection with one text column, otherwise an object of its text columns. `embedding` is
    kept unchanged if its dimension fits and `embedding_model`, if given, names the collection's model. A column that
    the event leaves out keeps its value in the row, or gets its default in a new row; null sets NULL. An embedding that
    is left out is kept as long as the text is the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    ce_type: ClassVar[str] = "crossfade.document.submitted.v1"

    collection: CollectionName
    id: DocumentId
    tenant: Tenant = "default"
    text: str | dict[str, str | None] = {}
    metadata: dict[str, Scalar] = {}
    embedding: list[float] | None = None
    embedding_model: str | None = None


class Evidence(BaseModel):
    """What a repair found in the ledger. Each part counts only while the ledger still holds the values that it read.

    `ends` is a producer's version whose write to the table was captured already, or never will be. `position` and
    `producers` are recorded positions beyond the end of their log or topic, which shows that the ledger was damaged.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    ends: int | None = None
    position: Position = ()
    producers: tuple[Position, ...] = ()


class DocumentChanged(Event):
    """One entry of the document log. Its version is (partition epoch << 40) | offset, known once it is written.

    `position` orders the entries of one source. For a producer it is (partition epoch, partition, offset), for legacy
    see `domain.positions`, for a refresh it is the ledger's legacy position, read before the row. `done` is the
    ledger's legacy version, also read before the row. `content` is None for a deletion, for our own echo and for an
    incomplete row. `rejects` names the producer version that the legacy store refused, or that went to the dead-letter
    topic before it reached that store.
    `omitted` are the columns that a producer's event leaves to the row; its content lacks them. A refresh that brings
    the row of such an event carries the event's id in `cause` and its version in `cause_version`.
    """

    ce_type: ClassVar[str] = "crossfade.document.changed.v1"

    collection: CollectionName
    id: DocumentId
    origin: Origin
    deleted: bool = False
    content: Content | None = None
    content_hash: str | None = None
    omitted: tuple[str, ...] = ()
    before_version: int | None = None
    after_version: int | None = None
    snapshot: bool = False
    incomplete: bool = False
    position: Position = ()
    rejects: int = 0
    done: int = 0
    evidence: Evidence | None = None
    cause: str = ""
    cause_version: int = 0
    occurred_at_ms: int = 0


class DocumentResolved(Event):
    """A decision of the resolver: this version of the document takes effect in every store.

    If the content has `omitted` columns, only the table has the whole document, so Qdrant waits for the row.
    """

    ce_type: ClassVar[str] = "crossfade.document.resolved.v1"

    collection: CollectionName
    id: DocumentId
    version: int
    origin: Origin
    deleted: bool = False
    content: Content | None = None
    content_hash: str | None = None
    omitted: tuple[str, ...] = ()
    cause: str = ""
    occurred_at_ms: int = 0


class EmbeddedChunk(BaseModel):
    """One chunk of a document: its text and its vector as little-endian float32 bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_bytes="base64", val_json_bytes="base64")

    text: str
    vector: bytes


class DocumentEmbedded(Event):
    """A resolved version with all of its chunks and vectors; without chunks it is a deletion.

    `refused`: Qdrant cannot hold the document, as its dead letter reports; this event only removes it from Qdrant.
    """

    ce_type: ClassVar[str] = "crossfade.document.embedded.v1"

    collection: CollectionName
    id: DocumentId
    version: int
    origin: Origin
    deleted: bool = False
    tenant: Tenant = "default"
    content_hash: str | None = None
    metadata: dict[str, Scalar] = {}
    model: str = ""
    chunks: tuple[EmbeddedChunk, ...] = ()
    refused: bool = False
    cause: str = ""
    occurred_at_ms: int = 0


Store = Literal["legacy", "qdrant"]
WriteOutcome = Literal["applied", "superseded", "dead_lettered", "not_written"]


class DocumentWritten(Event):
    """The outcome of one change in one store.

    `store` is None if the event was refused before any store (a malformed submission, a decision that is too large).
    `cause` is the id of the producer's event, empty for a captured change. `latency_ms` counts from the
    timestamp of the producer or of the database.
    `not_written`: the collection's phase does not write to this store.
    """

    ce_type: ClassVar[str] = "crossfade.document.written.v1"

    collection: str
    id: str
    store: Store | None
    version: int | None
    outcome: WriteOutcome
    origin: Origin
    error: str | None = None
    cause: str = ""
    latency_ms: int = 0


DifferenceKind = Literal["missing", "stale", "ghost"]


class DifferenceFound(Event):
    """The verifier found a document that differs between the stores; `detail` says how, without the document's text."""

    ce_type: ClassVar[str] = "crossfade.difference.found.v1"

    collection: CollectionName
    id: DocumentId
    kind: DifferenceKind
    detail: str
    legacy_version: int | None = None
    vector_version: int | None = None


class DifferenceRepaired(Event):
    """A refresh entry was appended for a difference, so that Qdrant returns to what the legacy store holds."""

    ce_type: ClassVar[str] = "crossfade.difference.repaired.v1"

    collection: CollectionName
    id: DocumentId
    kind: DifferenceKind
