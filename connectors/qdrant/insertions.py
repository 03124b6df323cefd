"""Insertions over gRPC, assembled as bytes, so that vectors never become Python floats. Nothing is sent from here.

Everywhere in crossfade a vector is little-endian float32 bytes. The packed field of a request holds the same bytes, so
they are copied, not converted. Payload values that repeat from point to point are encoded once, by the library. With
message objects for all values, the whole would take three times as long. Source: the encoding of Protocol Buffers, in
which a message is its fields one after the other, in any order
(https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Any, Final

from qdrant_client import grpc
from qdrant_client.conversions.conversion import payload_to_grpc

from connectors.qdrant.points import VECTOR, PointBatch

_VARINT, _EIGHT_BYTES, _LENGTH_FIRST = 0, 1, 2  # wire types
_double: Final = Struct("<d").pack
# Many points have the same value in these fields.
_REPEATING: Final = frozenset({"tenant", "chunk", "version", "deleted", "model"})


def insertion(collection: str, batch: PointBatch, timeout_s: int) -> grpc.UpsertPoints:
    """Return the request that writes the points whose ids do not exist yet, and waits until they are applied.

    Servers of version 1.16 do not know the mode `InsertOnly`. For them the filter has the same effect.
    """
    request = grpc.UpsertPoints(
        collection_name=collection,
        wait=True,
        timeout=timeout_s,
        update_mode=grpc.UpdateMode.InsertOnly,
        update_filter=grpc.Filter(must=[grpc.Condition(has_id=grpc.HasIdCondition())]),  # matches no existing point
    )
    points = [
        _part(_POINT, _part(_ID, _part(_UUID, name.encode())) + _payload(payload) + _vector_lead(len(vector)) + vector)
        for name, payload, vector in zip(batch.names, batch.payloads, batch.vectors, strict=True)
    ]
    request.MergeFromString(b"".join(points))
    return request


def _payload(payload: dict[str, Any]) -> bytes:
    """Return the encoded payload of a point, with one entry for each of its fields."""
    entries: list[bytes] = []
    for name, value in payload.items():
        kind = type(value)
        if name in _REPEATING:
            entry = _repeating(name, value)
        elif kind is str:
            entry = _entry(name, _part(_TEXT, value.encode()))
        elif kind is float:
            entry = _entry(name, _DOUBLE + _double(value))
        elif kind is int and value >= 0:
            entry = _entry(name, _INTEGER + _varint(value))
        else:
            entry = _entry(name, _NOTHING if value == {} else _by_library(value))
        entries.append(entry)
    return b"".join(entries)


def _entry(name: str, value: bytes) -> bytes:
    return _part(_PAYLOAD, _name(name) + _part(_VALUE, value))


@lru_cache(maxsize=256, typed=True)
def _repeating(name: str, value: Any) -> bytes:
    return _entry(name, _by_library(value))


def _by_library(value: Any) -> bytes:
    encoded: bytes = grpc.PointStruct(payload=payload_to_grpc({"": value})).payload[""].SerializeToString()
    return encoded


def _tag(field: Any, wire_type: int = _LENGTH_FIRST) -> bytes:
    """Return the bytes that a field begins with. `field` comes from a message's descriptor."""
    return _varint(field.number << 3 | wire_type)


def _part(tag: bytes, content: bytes) -> bytes:
    """Return an encoded field that holds text, bytes or a message."""
    size = len(content)
    return tag + (_LENGTHS[size] if size < len(_LENGTHS) else _varint(size)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_LENGTHS: Final = [_varint(size) for size in range(4096)]
_NOTHING: Final = _by_library({})


@lru_cache(maxsize=64)
def _name(name: str) -> bytes:
    """Return the encoded key of an entry, of a payload or of the named vectors."""
    return _part(_KEY, name.encode())


@lru_cache(maxsize=16)
def _vector_lead(size: int) -> bytes:
    """Return the bytes that precede the `size` bytes of a vector. The vector ends its point."""
    lead = b""
    for start in (_DATA, _DENSE, _name(VECTOR) + _VALUE, _NAMED, _NAMES, _VECTORS):
        lead = start + _varint(len(lead) + size) + lead
    return lead


_REQUEST_FIELDS: Final = grpc.UpsertPoints.DESCRIPTOR.fields_by_name
_POINT_FIELDS: Final = grpc.PointStruct.DESCRIPTOR.fields_by_name
_VALUE_FIELDS: Final = grpc.Value.DESCRIPTOR.fields_by_name
_ENTRY_FIELDS: Final = _POINT_FIELDS["payload"].message_type.fields_by_name
_POINT, _ID = _tag(_REQUEST_FIELDS["points"]), _tag(_POINT_FIELDS["id"])
_UUID = _tag(grpc.PointId.DESCRIPTOR.fields_by_name["uuid"])
_PAYLOAD, _KEY, _VALUE = _tag(_POINT_FIELDS["payload"]), _tag(_ENTRY_FIELDS["key"]), _tag(_ENTRY_FIELDS["value"])
_TEXT, _INTEGER, _DOUBLE = (
    _tag(_VALUE_FIELDS["string_value"]),
    _tag(_VALUE_FIELDS["integer_value"], _VARINT),
    _tag(_VALUE_FIELDS["double_value"], _EIGHT_BYTES),
)
_VECTORS, _NAMES = _tag(_POINT_FIELDS["vectors"]), _tag(grpc.Vectors.DESCRIPTOR.fields_by_name["vectors"])
_NAMED = _tag(grpc.NamedVectors.DESCRIPTOR.fields_by_name["vectors"])
_DENSE = _tag(grpc.Vector.DESCRIPTOR.fields_by_name["dense"])
_DATA = _tag(grpc.DenseVector.DESCRIPTOR.fields_by_name["data"])
