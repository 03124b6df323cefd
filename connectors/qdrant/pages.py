"""Pages of a server's points.

Over gRPC they are read without the client's models, which takes a third of the time and makes no floats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from qdrant_client import AsyncQdrantClient, grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc, grpc_to_payload


@dataclass(frozen=True, slots=True)
class Received:
    """A point with the requested fields. A vector is its little-endian float32 bytes."""

    id: models.ExtendedPointId
    payload: Mapping[str, Any]
    vector: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Pages:
    """A reader of points, page by page. If `packed`, it reads over gRPC, and `timeout_s` limits each request."""

    client: AsyncQdrantClient
    packed: bool
    timeout_s: int

    async def read(
        self,
        collection: str,
        only: models.Filter | None,
        limit: int,
        offset: Any,
        fields: Sequence[str],
        *,
        vectors: bool,
    ) -> tuple[Sequence[models.Record | Received], Any]:
        """Return up to `limit` points with these payload fields, and the offset of the next page (None at the end)."""
        with_payload = list(fields) or False
        if not self.packed:
            return await self.client.scroll(
                collection, only, limit, offset=offset, with_payload=with_payload, with_vectors=vectors
            )
        request = grpc.ScrollPoints(
            collection_name=collection,
            filter=None if only is None else RestToGrpc.convert_filter(only),
            limit=limit,
            offset=None if offset is None else RestToGrpc.convert_extended_point_id(offset),
            with_payload=RestToGrpc.convert_with_payload_interface(with_payload),
            with_vectors=RestToGrpc.convert_with_vectors(vectors),
        )
        answer = await self.client.grpc_points.Scroll(request, timeout=self.timeout_s)
        more = answer.HasField("next_page_offset")
        following = GrpcToRest.convert_point_id(answer.next_page_offset) if more else None
        return [received(point) for point in answer.result], following


def received(point: grpc.RetrievedPoint) -> Received:
    """Return a point of a gRPC answer, converted."""
    name = GrpcToRest.convert_point_id(point.id)
    return Received(name, grpc_to_payload(point.payload), _vectors(point) if point.HasField("vectors") else {})


def _vectors(point: grpc.RetrievedPoint) -> dict[str, bytes]:
    """Return the named dense vectors. Servers put them in `data` before the field `dense` existed."""
    dense = {
        name: (vector.dense if vector.HasField("dense") else vector).data
        for name, vector in point.vectors.vectors.vectors.items()
    }
    return {name: np.array(data, dtype="<f4").tobytes() for name, data in dense.items() if data}
