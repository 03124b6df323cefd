"""What Qdrant holds of a document, and what a new version changes in it: which vectors are kept, which chunks end."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from schemas.content import Scalar

_GIVEN = " (given)"
# So many points of a document may be lost, and the numbers of those behind them are still believed.
_MOST_MISSING = 10_000


def given_by(model_key: str) -> str:
    """Return what stands for the model of a vector that came with its document, and was not computed."""
    return model_key + _GIVEN


def made_by(model: str) -> str:
    """Return the model key of a vector, given or computed."""
    return model.removesuffix(_GIVEN)


class StoredChunk(msgspec.Struct, frozen=True, gc=False):
    """One point of a document as it is in Qdrant; `text`, `metadata` and `vector` only where they were asked for.

    `checksum` and `vector_checksum` are what was written with the point, None for a point that has none.
    """

    chunk: int
    version: int
    deleted: bool
    content_hash: str | None = None
    tenant: str = "default"
    model: str = ""
    checksum: int | None = None
    vector_checksum: float | None = None
    text: str | None = None
    metadata: Mapping[str, Scalar] | None = None
    vector: bytes | None = None

    @property
    def begins(self) -> bool:
        """A visible document begins with it."""
        return self.chunk == 0 and not self.deleted


class PointChunk(msgspec.Struct, frozen=True, gc=False):
    """One chunk to write: its text, its vector (little-endian float32), and the vector's checksum (`chunks_of`)."""

    text: str
    vector: bytes
    vector_checksum: float


class DocumentPoints(msgspec.Struct, frozen=True, gc=False):
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
    # Chunk numbers of a document leave no gap, so a number far beyond the points that there are was damaged.
    most = 2 * len(stored) + _MOST_MISSING
    numbers = (point.chunk + 1 for point in stored if point.chunk < most)
    known = max([highest, 0 if chunks else 1, len(stored), *numbers])
    return tuple(range(chunks, known))


def newest_version(stored: Sequence[StoredChunk]) -> int:
    """Return the highest version among the points of a document, -1 where there is none."""
    return max((point.version for point in stored), default=-1)


def reusable_vectors(texts: Sequence[str], models: Collection[str], stored: Sequence[StoredChunk]) -> dict[int, bytes]:
    """Return, by position in `texts`, the vectors of stored live chunks with the same text, made by one of `models`.

    Not one that is no longer what was written: it would get a checksum that fits it.
    """
    known = {
        point.text: point.vector
        for point in stored
        if not point.deleted and point.model in models and point.text is not None and point.vector is not None
        if point.vector_checksum is None or has_checksum(point.vector, point.vector_checksum)
    }
    return {number: known[text] for number, text in enumerate(texts) if text in known}


CHECKSUM = "checksum"
VECTOR_CHECKSUM = "vector_checksum"
CHECKED = ("document_id", "tenant", "chunk", "version", "content_hash", "deleted", "text", "metadata", "model")


def payload_checksum(payload: Mapping[str, Any]) -> int:
    """Return 53 bits of BLAKE2b over the other fields of a point's payload, whatever the order of its metadata.

    A payload that was changed by hand no longer has the checksum that it carries. 53 bits: an integer that JSON and
    a float keep.
    """
    return checksum([payload.get(name) for name in CHECKED])


def checksum(values: Sequence[Any]) -> int:
    """Return what `payload_checksum` does, of the values of its fields in their order."""
    fields = orjson.dumps(values, option=orjson.OPT_SORT_KEYS)
    return int.from_bytes(blake2b(fields, digest_size=8).digest(), "big") >> 11


def vector_checksums(vectors: Sequence[bytes]) -> list[float]:
    """Return for each vector (float32 bytes, of one length) the component of its unit vector along a fixed direction.

    A vector that was changed has another one, whatever its length was; rounding to float32 moves it by less than
    `VECTOR_CHECKSUM_ERROR`. A vector of zeros has 0.
    """
    if not vectors:
        return []
    values = np.frombuffer(b"".join(vectors), dtype="<f4").reshape(len(vectors), -1)
    # Not by BLAS, whose threads would wait for each other where the cores are busy.
    lengths = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    along = np.einsum("ij,j->i", values, _direction(values.shape[1]), dtype=np.float64)
    # So few digits every reader of JSON gives back as they were written.
    checksums: list[float] = np.round(along / np.where(lengths == 0, 1, lengths), 9).tolist()
    return checksums


VECTOR_CHECKSUM_ERROR = 1e-6


def has_checksum(vector: bytes, checksum: float) -> bool:
    """Say whether a vector (float32 bytes) has a checksum of `vector_checksums`; one with NaN has none."""
    return abs(vector_checksums([vector])[0] - checksum) <= VECTOR_CHECKSUM_ERROR


@lru_cache(maxsize=16)
def _direction(dimension: int) -> npt.NDArray[np.float64]:
    """A unit vector without structure: what a component adds does not repeat, and none adds next to nothing."""
    angles = np.arange(1, dimension + 1) * 2.399963229728653  # the golden angle
    values = np.cos(angles) + 2.0
    unit: npt.NDArray[np.float64] = values / np.sqrt(values @ values)
    return unit


def chunks_of(texts: Sequence[str], vectors: Sequence[bytes]) -> tuple[PointChunk, ...]:
    """Return chunks to write from their texts and vectors, with the checksums of the vectors."""
    return tuple(map(PointChunk, texts, vectors, vector_checksums(vectors)))
