"""A document's points in Qdrant, and what a new version changes: which vectors are reused, which chunks end."""

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
# This many points of a document may be missing before a higher chunk number counts as damaged.
_MOST_MISSING = 10_000


def given_by(model_key: str) -> str:
    """Return the model name of a precomputed vector, which came with its document."""
    return model_key + _GIVEN


def made_by(model: str) -> str:
    """Return the model key of a vector, precomputed or computed here."""
    return model.removesuffix(_GIVEN)


class StoredChunk(msgspec.Struct, frozen=True, gc=False):
    """One point of a document as stored in Qdrant; `text`, `metadata` and `vector` are set only if requested.

    `checksum` and `vector_checksum` were written with the point; they are None if the point has none.
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
        """Whether a visible document begins with this point."""
        return self.chunk == 0 and not self.deleted

    @property
    def precomputed(self) -> bool:
        """Whether the vector came with the document instead of being computed here."""
        return self.model != made_by(self.model)


class PointChunk(msgspec.Struct, frozen=True, gc=False):
    """One chunk to write: its text, its vector (little-endian float32), and the vector's checksum (`chunks_of`)."""

    text: str
    vector: bytes
    vector_checksum: float


class DocumentPoints(msgspec.Struct, frozen=True, gc=False):
    """All points of one version of a document: live chunks 0..n-1, and the chunk numbers that become tombstones."""

    id: str
    version: int
    tenant: str
    content_hash: str | None
    model: str
    metadata: Mapping[str, Scalar]
    chunks: tuple[PointChunk, ...]
    tombstones: tuple[int, ...]


def tombstones_for(chunks: int, stored: Sequence[StoredChunk], highest: int = 0) -> tuple[int, ...]:
    """Return the chunk numbers that must become tombstones: stored or assigned before (below `highest`), now gone.

    A deletion (`chunks` 0) always leaves at least chunk 0, even if the document was never stored, so that a late insert
    finds a guard where it would write.
    """
    # The chunk numbers of a document have no gaps, so a number far beyond the existing points is damaged.
    most = 2 * len(stored) + _MOST_MISSING
    numbers = (point.chunk + 1 for point in stored if point.chunk < most)
    known = max([highest, 0 if chunks else 1, len(stored), *numbers])
    return tuple(range(chunks, known))


def newest_version(stored: Sequence[StoredChunk]) -> int:
    """Return the highest version among the points of a document, -1 if there are no points."""
    return max((point.version for point in stored), default=-1)


def reusable_vectors(texts: Sequence[str], models: Collection[str], stored: Sequence[StoredChunk]) -> dict[int, bytes]:
    """Return, by position in `texts`, the vectors of stored live chunks with the same text, made by one of `models`.

    A vector that changed after it was written is not reused: it would get a new checksum that matches it.
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

    A payload that was changed by hand no longer matches the checksum that it carries. An integer of 53 bits is exact
    in JSON and in a float.
    """
    return checksum([payload.get(name) for name in CHECKED])


def checksum(values: Sequence[Any]) -> int:
    """Return the same checksum as `payload_checksum`, from the values of the fields in their order."""
    fields = orjson.dumps(values, option=orjson.OPT_SORT_KEYS)
    return int.from_bytes(blake2b(fields, digest_size=8).digest(), "big") >> 11


def vector_checksums(vectors: Sequence[bytes]) -> list[float]:
    """Return for each vector (float32 bytes, of one length) the component of its unit vector along a fixed direction.

    A changed vector has another component, whatever its length was; rounding to float32 changes it by less than
    `VECTOR_CHECKSUM_ERROR`. A vector of zeros has 0.
    """
    if not vectors:
        return []
    values = np.frombuffer(b"".join(vectors), dtype="<f4").reshape(len(vectors), -1)
    # Computed without BLAS, whose threads would wait for each other on busy cores.
    lengths = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    along = np.einsum("ij,j->i", values, _direction(values.shape[1]), dtype=np.float64)
    # Every JSON reader returns a number with this few digits unchanged.
    checksums: list[float] = np.round(along / np.where(lengths == 0, 1, lengths), 9).tolist()
    return checksums


VECTOR_CHECKSUM_ERROR = 1e-6


def has_checksum(vector: bytes, checksum: float) -> bool:
    """Return whether a vector (float32 bytes) has that checksum of `vector_checksums`; a vector with NaN has none."""
    return abs(vector_checksums([vector])[0] - checksum) <= VECTOR_CHECKSUM_ERROR


@lru_cache(maxsize=16)
def _direction(dimension: int) -> npt.NDArray[np.float64]:
    """Return a unit vector without structure: its components do not repeat, and none is close to zero."""
    angles = np.arange(1, dimension + 1) * 2.399963229728653  # the golden angle
    values = np.cos(angles) + 2.0
    unit: npt.NDArray[np.float64] = values / np.sqrt(values @ values)
    return unit


def chunks_of(texts: Sequence[str], vectors: Sequence[bytes]) -> tuple[PointChunk, ...]:
    """Return the chunks to write from their texts and vectors, with the checksums of the vectors."""
    return tuple(map(PointChunk, texts, vectors, vector_checksums(vectors)))
