"""Upserts over gRPC whose vectors never become Python floats. Nothing is sent from here.

The packed field of a request is the little-endian float32 bytes that a vector is made of everywhere in crossfade, so it
is copied, not converted.
"""

from __future__ import annotations

from qdrant_client import grpc
from qdrant_client.conversions.conversion import payload_to_grpc

from connectors.qdrant.points import VECTOR, PointBatch

_DATA_FIELD = b"\x0a"  # field 1, length-delimited: `repeated float data = 1` of a dense vector


def insertion(collection: str, batch: PointBatch, timeout_s: int) -> grpc.UpsertPoints:
    """Return the request that writes points where there are none of their ids, and waits until it is applied."""
    return grpc.UpsertPoints(
        collection_name=collection,
        wait=True,
        timeout=timeout_s,
        points=[
            grpc.PointStruct(
                id=grpc.PointId(uuid=name),
                payload=payload_to_grpc(payload),
                vectors=grpc.Vectors(
                    vectors=grpc.NamedVectors(vectors={VECTOR: grpc.Vector(dense=_dense(vector))}),
                ),
            )
            for name, payload, vector in zip(batch.names, batch.payloads, batch.vectors, strict=True)
        ],
        update_filter=grpc.Filter(must=[grpc.Condition(has_id=grpc.HasIdCondition())]),  # no point that is there
    )


def _dense(vector: bytes) -> grpc.DenseVector:
    """Return a dense vector from its float32 bytes. Source: Protocol Buffers' encoding of packed repeated fields."""
    dense: grpc.DenseVector = grpc.DenseVector.FromString(_DATA_FIELD + _varint(len(vector)) + vector)
    return dense


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
