"""Conversion of the payloads and vectors of a server's or the engine's records to stored points.

Other programs may have changed the records. A point that no writer of crossfade would write must still be read, and
must be reported as different.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from struct import Struct
from typing import Any, TypeVar

import msgspec

from connectors.qdrant.floats import EXACT, exact_metadata
from connectors.qdrant.points import CONTENT_FIELDS, MARK_FIELDS, VECTOR
from connectors.vector_ports import NAMELESS
from domain.points import CHECKSUM, VECTOR_CHECKSUM, StoredChunk

T = TypeVar("T")
# Checksums may be absent: points of an older release have none.
_MARKS, _CONTENT = frozenset(MARK_FIELDS), frozenset(CONTENT_FIELDS) - {CHECKSUM, VECTOR_CHECKSUM, EXACT}


def _vector_bytes(values: object) -> bytes | None:
    """Return the named vector of a stored point as bytes, or None if it has none."""
    dense = values.get(VECTOR) if isinstance(values, Mapping) else None
    return dense if dense is None or isinstance(dense, bytes) else _floats_of(len(dense)).pack(*dense)


@lru_cache(maxsize=16)
def _floats_of(dimension: int) -> Struct:
    """Return the layout of a vector. Packing a list with it takes half the time of making an array from the list."""
    return Struct(f"<{dimension}f")


def stored_chunk(payload: Mapping[str, Any], vectors: object = None, *, content: bool = False) -> StoredChunk:
    """Return a stored point, made from its payload and, with `content`, from its vectors."""
    fields = dict(payload)
    if EXACT in fields:
        fields["metadata"] = exact_metadata(fields)
    if content and fields.get("deleted") is not True:
        fields["vector"] = _vector_bytes(vectors)
    whole = fields.keys() >= _CONTENT and fields["metadata"] is not None if content else fields.keys() >= _MARKS
    if whole:
        try:
            return msgspec.convert(fields, StoredChunk, builtin_types=(bytes,))
        except msgspec.ValidationError:
            pass
    return _strange(fields, content)


def _strange(payload: Mapping[str, Any], content: bool) -> StoredChunk:
    """Return a point whose payload lacks a field or has one of an unexpected type. No payload has its checksum."""

    def of(name: str, kind: type[T]) -> T | None:
        value = payload.get(name)
        return value if type(value) is kind else None

    chunk = of("chunk", int)
    return StoredChunk(
        chunk=-1 if chunk is None else chunk,
        version=version_in(payload),
        deleted=payload.get("deleted") is True,
        content_hash=of("content_hash", str),
        tenant=of("tenant", str) or "",
        model=of("model", str) or "",
        checksum=-1 if content else None,
        vector_checksum=of(VECTOR_CHECKSUM, float),
        text=of("text", str),
        metadata={} if content else None,
        vector=of("vector", bytes),
    )


def version_in(payload: Mapping[str, Any]) -> int:
    """Return the version of a point. A point without one counts as older than every version (-1)."""
    version = payload.get("version")
    return version if type(version) is int else -1


def chunks_in(records: Iterable[Any], *, content: bool = False) -> list[tuple[str, StoredChunk]]:
    """Return the document id (`NAMELESS` if there is none) and the stored point of each record."""
    found: list[tuple[str, StoredChunk]] = []
    for record in records:
        payload = record.payload or {}
        name = payload.get("document_id")
        chunk = stored_chunk(payload, record.vector, content=content)
        found.append((name if isinstance(name, str) else NAMELESS, chunk))
    return found


def by_document(
    points: Sequence[tuple[str, StoredChunk]], order: Sequence[str] | None = None
) -> dict[str, list[StoredChunk]]:
    """Group points by document, ordered by chunk number. Documents follow `order`, else the order of appearance."""
    groups: dict[str, list[StoredChunk]] = {}
    for document_id, chunk in points:
        groups.setdefault(document_id, []).append(chunk)
    ids = groups if order is None else [document_id for document_id in dict.fromkeys(order) if document_id in groups]
    return {document_id: sorted(groups[document_id], key=lambda point: point.chunk) for document_id in ids}
