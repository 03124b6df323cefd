"""What Qdrant holds of a document, and what a new version changes in it: which vectors are kept, which chunks end."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from schemas.content import Scalar

_GIVEN = " (given)"


def given_by(model_key: str) -> str:
    """Return what stands for the model of a vector that came with its document, and was not computed."""
    return model_key + _GIVEN


def made_by(model: str) -> str:
    """Return the model key of a vector, given or computed."""
    return model.removesuffix(_GIVEN)


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """One point of a document as it is in Qdrant; `text` and `vector` only where they were asked for."""

    chunk: int
    version: int
    deleted: bool
    content_hash: str | None = None
    tenant: str = "default"
    model: str = ""
    text: str | None = None
    vector: bytes | None = None


@dataclass(frozen=True, slots=True)
class PointChunk:
    """One chunk to write: its text and its vector, little-endian float32."""

    text: str
    vector: bytes


@dataclass(frozen=True, slots=True)
class DocumentPoints:
    """All the points of one version of a document: live chunks 0..n-1, and the numbers that become tombstones."""

    id: str
    version: int
    tenant: str
    content_hash: str | None
    model: str
    metadata: Mapping[str, Scalar]
    chunks: tuple[PointChunk, ...]
    tombstones: tuple[int, ...]


def tombstones_for(chunks: int, stored: Sequence[StoredChunk], highest: int = 0) -> tuple[int, ...]:
    """Return the chunk numbers that must become tombstones: stored or handed out before (below `highest`), now gone.

    A deletion (`chunks` 0) always leaves at least chunk 0, also of a document that was never stored, so that a late
    insert finds a guard where it would write.
    """
    known = max([highest, 0 if chunks else 1, *(point.chunk + 1 for point in stored)])
    return tuple(range(chunks, known))


def newest_version(stored: Sequence[StoredChunk]) -> int:
    """Return the highest version among the points of a document, -1 where there is none."""
    return max((point.version for point in stored), default=-1)


def reusable_vectors(texts: Sequence[str], models: Collection[str], stored: Sequence[StoredChunk]) -> dict[int, bytes]:
    """Return, by position in `texts`, the vectors of stored live chunks with the same text, made by one of `models`."""
    known = {
        point.text: point.vector
        for point in stored
        if not point.deleted and point.model in models and point.text is not None and point.vector is not None
    }
    return {number: known[text] for number, text in enumerate(texts) if text in known}
