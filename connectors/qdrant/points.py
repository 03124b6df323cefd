"""Code shared by every adapter of `VectorStore`: a point's payload and vectors, and the choice of one hit per document.

This module imports no driver and calls no store.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from connectors.errors import Refused
from connectors.qdrant.floats import EXACT, exact_metadata, exact_texts
from domain.filters import matches
from domain.points import CHECKSUM, VECTOR_CHECKSUM, DocumentPoints, payload_checksum
from schemas.content import Scalar
from schemas.keys import point_id
from schemas.queries import Hit
from schemas.values import Kind

log = logging.getLogger(__name__)

VECTOR: Final = "dense"
MARK_FIELDS: Final = ["document_id", "tenant", "chunk", "version", "content_hash", "deleted", "model"]
CONTENT_FIELDS: Final = [*MARK_FIELDS, "text", "metadata", EXACT, CHECKSUM, VECTOR_CHECKSUM]
HIT_FIELDS: Final = ["document_id", "chunk", "version", "text", "metadata", EXACT]
IDS_A_REQUEST: Final = 1000
POINTS_A_PAGE: Final = 1000
EXACT_FLOAT: Final = 2**53
# A search of a quantized collection first selects this many times the wanted points. Their original vectors decide.
OVERSAMPLING: Final = 4.0
IndexKind = Literal["keyword", "integer", "float", "bool"]
# Values are stored in their canonical form, so decimals, times and UUIDs are strings. A JSON document is a string too,
# but nobody filters by equality with a whole document, and an index would keep every document in memory.
_INDEX_KINDS: Final[Mapping[Kind, IndexKind | None]] = {
    Kind.TEXT: "keyword",
    Kind.PADDED: "keyword",
    Kind.INTEGER: "integer",
    Kind.FLOAT: "float",
    Kind.FLOAT32: "float",
    Kind.DECIMAL: "keyword",
    Kind.BOOLEAN: "bool",
    Kind.FLAG: "bool",
    Kind.TIMESTAMP: "keyword",
    Kind.TIMESTAMPTZ: "keyword",
    Kind.DATE: "keyword",
    Kind.TIME: "keyword",
    Kind.UUID: "keyword",
    Kind.JSON: None,
}
_OVERSAMPLING: Final = 4
_MOST_POINTS_SEARCHED: Final = 65_536


def payload_characters(document: DocumentPoints) -> int:
    """Return the approximate length of a document's payloads in characters. Each chunk has all of the metadata."""
    metadata = sum(len(name) + len(str(value)) for name, value in document.metadata.items())
    return sum(len(chunk.text) + metadata for chunk in document.chunks)


def payload_of(document: DocumentPoints, chunk: int) -> dict[str, Any]:
    """Return the payload of a chunk, or of a tombstone if the number is not that of a live chunk."""
    live = chunk < len(document.chunks)
    payload = {
        "document_id": document.id,
        "tenant": document.tenant,
        "chunk": chunk,
        "version": document.version,
        "content_hash": document.content_hash,
        "deleted": not live,
        "text": document.chunks[chunk].text if live else "",
        "metadata": dict(document.metadata) if live else {},
        "model": document.model,
    }
    payload[CHECKSUM] = payload_checksum(payload)
    exact = exact_texts(document.metadata) if live else None
    if exact:
        payload[EXACT] = exact
    payload[VECTOR_CHECKSUM] = document.chunks[chunk].vector_checksum if live else None
    return payload


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Live points to insert: the id, the payload and the vector of each."""

    names: list[str]
    payloads: list[dict[str, Any]]
    vectors: list[bytes]

    def part(self, start: int, stop: int) -> PointBatch:
        """Return the points from `start` up to, but not including, `stop`."""
        return PointBatch(self.names[start:stop], self.payloads[start:stop], self.vectors[start:stop])


def batch_of(collection: str, documents: Sequence[DocumentPoints]) -> PointBatch:
    """Return the live points of documents. Tombstones are not inserted."""
    numbered = [(document, number) for document in documents for number in range(len(document.chunks))]
    return PointBatch(
        [point_id(collection, document.id, number) for document, number in numbered],
        [payload_of(document, number) for document, number in numbered],
        [document.chunks[number].vector for document, number in numbered],
    )


def check_document(document: DocumentPoints, dimension: int) -> None:
    """Raise Refused for a vector of another length or with NaN or infinity, and for metadata no payload can hold."""
    for number, chunk in enumerate(document.chunks):
        check_vector(chunk.vector, dimension, f"document {document.id}, chunk {number}")
    check_metadata(document)


def check_metadata(document: DocumentPoints) -> None:
    """Raise Refused for metadata that no payload can hold."""
    for name, value in document.metadata.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise Refused(f"document {document.id}: metadata {name} is {value}, which no payload can hold")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise Refused(f"document {document.id}: metadata {name} does not fit in 64 bits")


def check_vector(vector: bytes, dimension: int, what: str) -> None:
    """Raise Refused if the bytes are not `dimension` finite float32 values."""
    if len(vector) != 4 * dimension:
        raise Refused(f"{what}: the vector has {len(vector)} bytes, the collection's {dimension} floats take another")
    if not np.isfinite(np.frombuffer(vector, dtype="<f4")).all():
        raise Refused(f"{what}: the vector is not finite")


def check_batch(batch: PointBatch, dimension: int) -> None:
    """Raise Refused, naming the first faulty vector, if a vector is not `dimension` finite float32 values."""
    whole = b"".join(batch.vectors)
    sound = all(len(vector) == 4 * dimension for vector in batch.vectors)
    if not sound or not np.isfinite(np.frombuffer(whole, dtype="<f4")).all():
        for payload, vector in zip(batch.payloads, batch.vectors, strict=True):
            check_vector(vector, dimension, f"document {payload['document_id']}, chunk {payload['chunk']}")


def floats(vector: bytes) -> list[float]:
    """Return a vector as a list of floats, which the drivers take."""
    values: list[float] = np.frombuffer(vector, dtype="<f4").tolist()
    return values


def metadata_path(name: str) -> str:
    """Return the quoted payload path of a metadata field. Raises Refused for a name that cannot be quoted."""
    if not name or '"' in name or "\\" in name:
        raise Refused(f"a filter cannot name the metadata field {name!r}")
    return f'metadata."{name}"'


def metadata_indexes(metadata: Mapping[str, Kind]) -> dict[str, IndexKind]:
    """Return the payload path and index kind of each metadata column with an index. Raises as `metadata_path` does."""
    kinds = {metadata_path(name): _INDEX_KINDS[kind] for name, kind in metadata.items()}
    return {path: kind for path, kind in kinds.items() if kind is not None}


@dataclass(frozen=True, slots=True)
class Found:
    """A point that a search returned."""

    score: float
    payload: Mapping[str, Any]


def best_hits(found: Sequence[Found]) -> list[Hit]:
    """Return the best chunk of each document's highest version, best first, then by document id."""
    hits = [hit for point in found if (hit := _hit(point)) is not None]
    newest: dict[str, int] = {}
    for hit in hits:
        newest[hit.document_id] = max(_version(hit), newest.get(hit.document_id, -1))
    best: dict[str, Hit] = {}
    for hit in hits:
        known = best.get(hit.document_id)
        if _version(hit) == newest[hit.document_id] and (known is None or _rank(hit) < _rank(known)):
            best[hit.document_id] = hit
    return sorted(best.values(), key=_rank)


def _version(hit: Hit) -> int:
    return -1 if hit.version is None else hit.version


def _rank(hit: Hit) -> tuple[float, str, int]:
    return (-hit.score, hit.document_id, hit.chunk)


def _hit(point: Found) -> Hit | None:
    """Return a point as a hit, or None if crossfade did not write its payload."""
    payload = point.payload
    try:
        return Hit(
            document_id=payload["document_id"],
            chunk=payload["chunk"],
            score=point.score,
            text=payload.get("text") or "",
            metadata=exact_metadata(payload) or {},
            version=payload.get("version"),
        )
    except (KeyError, ValueError) as error:  # the verifier reports which
        log.debug("a point is no hit: %s", error)
        return None


async def search_documents(
    ask: Callable[[int], Awaitable[Sequence[Found]]], limit: int, wanted: Mapping[str, Scalar]
) -> list[Hit]:
    """Return up to `limit` documents, and ask for more points while those found belong to too few documents.

    `ask(n)` returns the n nearest points, or fewer if there are no more. The search stops at 65,536 points, even if
    that leaves fewer documents than `limit`.
    """
    points = limit * _OVERSAMPLING
    while True:
        found = await ask(points)
        hits = best_hits([point for point in found if matches(exact_metadata(point.payload), wanted)])
        if len(hits) >= limit or len(found) < points or points >= _MOST_POINTS_SEARCHED:
            return hits[:limit]
        points = min(points * 4, _MOST_POINTS_SEARCHED)
