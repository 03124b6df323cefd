"""Identifiers of a document: its record key, its point ids in Qdrant, its version. Pure conversions only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha1
from urllib.parse import quote, unquote
from uuid import UUID

POINT_NAMESPACE = UUID("6f1d8a52-3c1b-5d0e-9a77-2b9f6c3d4e10")
_NAMESPACE = POINT_NAMESPACE.bytes
POINT_ID_BYTES = 16
ID_CHARACTERS = 512
EPOCH_SHIFT = 40
FIRST_EPOCH = 1
# Qdrant reads a version in a condition as a float with one decimal, so ten times the highest must be exact, too.
LAST_EPOCH = 2 ** (49 - EPOCH_SHIFT) - 1


def document_key(collection: str, document_id: str) -> str:
    """Return the record key `collection/document_id`. A collection's name has no slash, so the first one separates."""
    return f"{collection}/{document_id}"


def parse_key(key: bytes) -> tuple[str, str]:
    """Return (collection, document id) of a record key. Raises ValueError when it is not `collection/document_id`."""
    collection, slash, document_id = key.decode("utf-8").partition("/")
    if not (collection and slash and document_id):
        raise ValueError("the key is not collection/document_id")
    return collection, document_id


UNUSABLE_ID = f"the key makes no id: it is empty, has a NUL character, or takes more than {ID_CHARACTERS} characters"


def is_id(text: str) -> bool:
    """Return whether a text can be the id of a document: neither empty nor too long, and without a NUL character."""
    return 0 < len(text) <= ID_CHARACTERS and "\x00" not in text


def join_key(values: Sequence[str]) -> str:
    """Return the document id of a row key: a single value unchanged, several percent-encoded and joined by slashes."""
    if len(values) == 1:
        return values[0]
    return "/".join(quote(value, safe="") for value in values)


def split_key(document_id: str, columns: int) -> tuple[str, ...]:
    """Return the key column values of a document id.

    Raises ValueError for another number of parts, for a NUL character, which PostgreSQL's text cannot hold, and for a
    spelling that `join_key` does not produce: two ids of one row would be two documents in the same row.
    """
    parts = (document_id,) if columns == 1 else tuple(unquote(part) for part in document_id.split("/"))
    if len(parts) != columns:
        raise ValueError(f"the id has {len(parts)} parts, the key of the table has {columns} columns")
    if any("\x00" in part for part in parts):
        raise ValueError("the id has a NUL character")
    if join_key(parts) != document_id:
        raise ValueError("the id is not percent-encoded as the ids of rows are (RFC 3986, upper-case digits)")
    return parts


@lru_cache(maxsize=65536)
def point_id(collection: str, document_id: str, chunk: int) -> str:
    """Return the point id of a chunk: UUIDv5 of collection, document and chunk number, in a third of `uuid5`'s time.

    Neither tenant nor model is part of it: a deletion knows neither, and must leave its tombstone under the id that any
    later write of the document uses.
    """
    digits = _hashed(collection, document_id, chunk).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def parse_point_id(text: str) -> UUID | int:
    """Return a point id from its text: a UUID, or a number, which other writers may use. Raises ValueError."""
    return int(text) if text.isdecimal() else UUID(text)


def packed_id(point: UUID | int | str) -> bytes:
    """Return a point id as 16 bytes; for a number the first eight are zero."""
    if isinstance(point, str):
        point = parse_point_id(point)
    return point.to_bytes(POINT_ID_BYTES, "big") if isinstance(point, int) else point.bytes


def unpacked_ids(packed: bytes) -> list[UUID | int]:
    """Return the point ids in a concatenation of `packed_id` results."""
    return [UUID(bytes=one) if any(one[:8]) else int.from_bytes(one[8:], "big") for one in each_packed(packed)]


def each_packed(packed: bytes) -> list[bytes]:
    """Return the parts of `packed`, one per point id."""
    return [packed[start : start + POINT_ID_BYTES] for start in range(0, len(packed), POINT_ID_BYTES)]


def point_hash(collection: str, document_id: str, chunk: int) -> bytes:
    """Return the last 8 bytes of `point_id`, before the UUID variant overwrites two of their bits."""
    return _hashed(collection, document_id, chunk)[8:16]


def _hashed(collection: str, document_id: str, chunk: int) -> bytes:
    """Return the hash from which a UUIDv5 is made (RFC 9562, 5.5)."""
    name = f"{document_key(collection, document_id)}#{chunk}"
    return sha1(_NAMESPACE + name.encode(), usedforsecurity=False).digest()


def version_of(epoch: int, offset: int) -> int:
    """Return the version of a log entry, below 2^49 because Qdrant's range conditions are floats.

    `epoch` counts from 1, so that 0 is lower than every version (the backfill writes 0).
    """
    if not FIRST_EPOCH <= epoch <= LAST_EPOCH:
        raise ValueError(f"partition epoch {epoch} is not in {FIRST_EPOCH}..{LAST_EPOCH}")
    if not 0 <= offset < 1 << EPOCH_SHIFT:
        raise ValueError(f"offset {offset} is not in 0..2^{EPOCH_SHIFT}")
    return epoch << EPOCH_SHIFT | offset


def epoch_and_offset(version: int) -> tuple[int, int]:
    """Return the epoch and offset that `version_of` combined."""
    return version >> EPOCH_SHIFT, version & ((1 << EPOCH_SHIFT) - 1)
