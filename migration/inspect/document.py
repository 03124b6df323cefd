"""What is known of one document, as values. Reads nothing and draws no conclusions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from domain.ledger import LedgerRow
from domain.legacy import LegacyRow
from domain.points import StoredChunk
from domain.quarantine import Quarantine
from schemas.keys import epoch_and_offset
from schemas.rollout import Phase


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the document log. `comes_to` is the verdict of the fold, if the entry is not folded yet."""

    partition: int
    offset: int
    version: int
    origin: str
    deleted: bool
    snapshot: bool
    incomplete: bool
    before_version: int | None
    after_version: int | None
    content_hash: str | None
    written_at_ms: int
    comes_to: str | None = None


@dataclass(frozen=True, slots=True)
class LogPart:
    """The document's entries in its partition of the log, oldest first, and which part of the partition was read.

    `entries` come from the offsets from `first` up to but not including `end`, and from single older offsets that the
    row, the ledger or the points name. `cut` is the reason why older or newer entries may be missing.
    """

    partition: int
    entries: tuple[Entry, ...]
    first: int
    end: int
    cut: str | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A record of the document that a role has not committed yet."""

    role: str
    topic: str
    partition: int
    offset: int
    written_at_ms: int


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter of the document, by its partition and offset in the dead-letter topic.

    `source` is the topic that it came from.
    """

    source: str
    partition: int
    offset: int
    stage: str
    error: str
    message: str
    written_at_ms: int
    replayed: bool


@dataclass(frozen=True, slots=True)
class Stores:
    """The row, the ledger row and the points, read directly one after another."""

    row: LegacyRow | None = None
    ledger: LedgerRow | None = None
    points: tuple[StoredChunk, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """All that is known of a document.

    `unread` names each place that could not be read, and why; `cut` names what was read only in part. `model` is the
    CRC-32 of the model key that the collection's points must carry, None if none is recorded. `brings` is whether the
    table has a column of embeddings. `max_text_bytes` is the longest text that Qdrant takes, None without a limit.
    """

    collection: str
    id: str
    phase: Phase
    now_ms: int
    stores: Stores = Stores()
    quarantine: Quarantine | None = None
    model: int | None = None
    brings: bool = False
    max_text_bytes: int | None = None
    log: LogPart | None = None
    waiting: tuple[Waiting, ...] = ()
    letters: tuple[Letter, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    cut: Mapping[str, str] = field(default_factory=dict)


def place_of(version: int | None) -> str:
    """Return a version in readable form: partition epoch and offset, or a dash for none."""
    return "{}:{}".format(*epoch_and_offset(version)) if version else "-"
