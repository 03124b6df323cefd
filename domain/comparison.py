"""Whether both stores hold the same document. A document that was not read is *unknown* to the caller, never equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
from zlib import crc32

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from domain.points import (
    CHECKED,
    VECTOR_CHECKSUM_ERROR,
    StoredChunk,
    checksum,
    made_by,
    newest_version,
    vector_checksums,
)
from schemas.content import Scalar
from schemas.documents import DifferenceKind

# The engine normalises vectors in 32 bits; each component of the unit vector is off by less than this.
GIVEN_ERROR = 2e-6
_TINY, _HUGE = 1e-30, 1e30
# The fields of a payload's checksum, except for the document's id, which comes first.
_checked = attrgetter(*CHECKED[1:])


class LegacyFacts(msgspec.Struct, frozen=True):
    """What the legacy store holds of a document.

    `chunk_count` and `vector_version` come from the ledger, None if it has none. `tenant` and `metadata` are not
    compared if they are None. `given` is the row's precomputed embedding, of a length that the collection can use.
    `refused` is why Qdrant cannot hold the document, empty if it can.
    """

    version: int | None
    content_hash: str
    chunk_count: int | None = None
    vector_version: int | None = None
    tenant: str | None = None
    metadata: Mapping[str, Scalar] | None = None
    given: bytes | None = None
    refused: str = ""


class Disagreement(Enum):
    """How the stores disagree on a document, as reports count it."""

    NO_POINT = "no visible point"
    NO_ROW = "no legacy row"
    REFUSED = "no place in Qdrant"
    CONTENT = "content hash"
    DUPLICATE_CHUNK = "duplicate chunk"
    CHUNK_MISSING = "chunk missing"
    CHUNK_VERSIONS = "chunks of versions"
    CHUNK_COUNT = "chunks, the ledger says"
    VERSION = "wrong version"
    PAYLOAD = "wrong payload"
    VECTOR = "wrong vector"
    MODEL = "wrong model"

    @property
    def is_damage(self) -> bool:
        """Whether no version of the row explains it, so that waiting for changes in flight does not help."""
        return self in {Disagreement.VERSION, Disagreement.PAYLOAD, Disagreement.VECTOR, Disagreement.MODEL}


@dataclass(frozen=True, slots=True)
class Difference:
    """One document that differs between the stores. `note` is more specific than `reason`, without the document's text.

    `repairable` is False if another write of the document would be refused again.
    """

    id: str
    kind: DifferenceKind
    reason: Disagreement
    legacy_version: int | None = None
    vector_version: int | None = None
    repairable: bool = True
    note: str = ""

    @property
    def detail(self) -> str:
        """The text that is published and printed."""
        return self.note or self.reason.value


def compare(
    document_id: str, legacy: LegacyFacts | None, stored: Sequence[StoredChunk], *, model: int | None = None
) -> Difference | None:
    """Return how the stores differ, or None if they hold the same. Vectors are compared by `wrong_vectors`.

    Payloads are checked if they were read with the points. `model` is the CRC-32 of the collection's model key.
    """
    visible = [point for point in stored if not point.deleted]
    if not visible:
        if legacy is None:
            return None
        reason, note = (Disagreement.REFUSED, legacy.refused) if legacy.refused else (Disagreement.NO_POINT, "")
        return Difference(document_id, "missing", reason, legacy.version, repairable=not legacy.refused, note=note)
    if legacy is None:
        return Difference(document_id, "ghost", Disagreement.NO_ROW, None, newest_version(visible))
    found = (Disagreement.REFUSED, legacy.refused) if legacy.refused else None
    found = found or _disagreement(legacy, visible) or _payload(document_id, legacy, visible)
    if found is None and model is not None and any(_fingerprint(point.model) != model for point in visible):
        found = Disagreement.MODEL, ""
    if found is None:
        return None
    return Difference(document_id, "stale", found[0], legacy.version, newest_version(visible), note=found[1])


Found = tuple[Disagreement, str]


def _disagreement(legacy: LegacyFacts, visible: Sequence[StoredChunk]) -> Found | None:
    version = visible[0].version
    if len(visible) > 1:
        numbers, versions = {point.chunk for point in visible}, {point.version for point in visible}
        if len(numbers) < len(visible):
            return Disagreement.DUPLICATE_CHUNK, ""
        if len(versions) > 1:
            return Disagreement.CHUNK_VERSIONS, f"chunks of {len(versions)} versions"
    for point in visible:
        if point.content_hash != legacy.content_hash:
            return Disagreement.CONTENT, ""
    if max(point.chunk for point in visible) != len(visible) - 1:
        return Disagreement.CHUNK_MISSING, ""
    # Of points that a backfill wrote, at version 0, only the content is compared.
    return _against_the_ledger(legacy, version, len(visible)) if version != 0 else None


def _against_the_ledger(legacy: LegacyFacts, version: int, chunks: int) -> Found | None:
    if legacy.chunk_count is not None and chunks != legacy.chunk_count:
        return Disagreement.CHUNK_COUNT, f"{chunks} chunks, the ledger says {legacy.chunk_count}"
    if legacy.vector_version and version != legacy.vector_version:
        return Disagreement.VERSION, f"wrong version: {version}, the ledger says {legacy.vector_version}"
    return None


def _payload(document_id: str, legacy: LegacyFacts, visible: Sequence[StoredChunk]) -> Found | None:
    for point in visible:
        if legacy.tenant is not None and point.tenant != legacy.tenant:
            return Disagreement.PAYLOAD, "wrong payload: tenant"
        if point.metadata is None:
            continue
        expected = legacy.metadata
        if expected is not None and point.metadata != expected and _present(point.metadata) != _present(expected):
            return Disagreement.PAYLOAD, "wrong payload: metadata"
        if point.checksum is not None and point.checksum != checksum_of(document_id, point):
            return Disagreement.PAYLOAD, ""
    return None


def _present(metadata: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {name: value for name, value in metadata.items() if value is not None}


@lru_cache(maxsize=64)
def _fingerprint(model: str) -> int:
    return crc32(made_by(model).encode())


def checksum_of(document_id: str, point: StoredChunk) -> int:
    """Return the checksum that a point must carry, computed from its payload as read."""
    return checksum([document_id, *_checked(point)])


def is_checked(stored: Sequence[StoredChunk]) -> bool:
    """Return whether every visible point carries its checksums; points written before checksums existed do not."""
    return all(p.deleted or (p.checksum is not None and p.vector_checksum is not None) for p in stored)


def points_digest(stored: Sequence[StoredChunk]) -> bytes:
    """Return a digest of 16 bytes over all points of a document: the version, hash and checksums of each."""
    marks = [
        (p.chunk, p.version, p.deleted, p.content_hash, p.model, p.checksum, p.vector_checksum)
        for p in sorted(stored, key=lambda point: point.chunk)
    ]
    return blake2b(orjson.dumps(marks), digest_size=16).digest()


def wrong_vectors(points: Sequence[StoredChunk], given: Sequence[bytes | None], dimension: int) -> set[int]:
    """Return the indexes of the visible points whose vector is not the one that was written with them.

    Each vector is compared with its own checksum, and with the row's precomputed embedding if there is one (`given`, in
    the same order). Qdrant keeps vectors at length 1, so the embedding is compared at that length.
    """
    size = 4 * dimension
    sound = [n for n, point in enumerate(points) if point.vector is not None and len(point.vector) == size]
    wrong = set(range(len(points))) - set(sound)
    if not sound:
        return wrong
    found = vector_checksums([points[n].vector or b"" for n in sound])
    for n, along in zip(sound, found, strict=True):
        expected = points[n].vector_checksum
        if expected is not None and not abs(along - expected) <= VECTOR_CHECKSUM_ERROR:  # NaN is also wrong
            wrong.add(n)
    held = [n for n in sound if given[n] is not None]
    if held:
        stored = np.frombuffer(b"".join(points[n].vector or b"" for n in held), dtype="<f4").reshape(-1, dimension)
        apart = np.abs(stored - _units([given[n] for n in held], dimension)).max(axis=1)
        wrong |= {n for n, far in zip(held, apart.tolist(), strict=True) if not far <= GIVEN_ERROR}
    return wrong


def _units(vectors: Sequence[bytes | None], dimension: int) -> npt.NDArray[np.float32]:
    values = np.frombuffer(b"".join(vector or b"" for vector in vectors), dtype="<f4").reshape(-1, dimension)
    with np.errstate(over="ignore", divide="ignore"):
        squared: npt.NDArray[np.float32] = np.einsum("ij,ij->i", values, values)
        if not ((squared > _TINY) & (squared < _HUGE)).all():  # squares out of the range of 32 bits
            values = values / np.maximum(np.abs(values).max(axis=1), np.float32(_TINY))[:, None]
            squared = np.einsum("ij,ij->i", values, values)
        return (values * (1 / np.sqrt(squared))[:, None]).astype(np.float32, copy=False)
