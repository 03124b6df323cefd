"""Pages of a server's points. Over gRPC they are read without the client's models: a third of the time, no floats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from qdrant_client import AsyncQdrantClient, grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc, grpc_to_payload


@dataclass(frozen=True, slots=True)
class Received:
    """A point with what was asked for of it; a vector is its little-endian float32 bytes."""

    id: models.ExtendedPointId
    payload: Mapping[str, Any]
    vector: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Pages:
    """Reads points by pages; `packed` reads them over gRPC, each request bounded by `timeout_s`."""

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
        """Return up to `limit` points with these fields of their payloads, and where to go on, None at the end."""
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
    """Return a point of an answer."""
    name = GrpcToRest.convert_point_id(point.id)
    return Received(name, grpc_to_payload(point.payload), _vectors(point) if point.HasField("vectors") else {})


def _vectors(point: grpc.RetrievedPoint) -> dict[str, bytes]:
    """Return the named dense vectors; `data` is where servers put them before there was `dense`."""
    dense = {
        name: (vector.dense if vector.HasField("dense") else vector).data
        for name, vector in point.vectors.vectors.vectors.items()
    }
    return {name: np.array(data, dtype="<f4").tobytes() for name, data in dense.items() if data}
