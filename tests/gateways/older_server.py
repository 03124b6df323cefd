"""The store behind the gateways: qdrant-client's local mode, with the differences of the first supported servers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import AsyncQdrantClient, models

VERSION = "1.16.0"


def as_qdrant_reads(text: str) -> float:
    """Return how serde_json reads a number with a fraction or an exponent: its digits times a power of ten."""
    digits, _, power = text.lower().partition("e")
    whole, _, fraction = digits.lstrip("-").partition(".")
    exponent = int(power or 0) - len(fraction)
    value = float(int(whole + fraction))
    while exponent < -308:
        value, exponent = value / 1e308, exponent + 308
    value = value * float(f"1e{exponent}") if exponent >= 0 else value / float(f"1e{-exponent}")
    return -value if text.startswith("-") else value


class OlderServer:
    """An empty store. `client` serves every request that needs no imitation.

    An upsert that names no vector keeps the point's existing vector, as servers before July 2026 do with points of an
    indexed segment (https://github.com/qdrant/qdrant/pull/9734). Floats of a payload are read from JSON as Qdrant reads
    them. The optimizer's threshold is stored and returned.
    """

    def __init__(self) -> None:
        self.client = AsyncQdrantClient(":memory:")
        self._thresholds: dict[str, int | None] = {}

    async def collection(self, name: str) -> models.CollectionInfo:
        """Return a collection. Raises ValueError if it does not exist."""
        found = await self.client.get_collection(name)
        if name in self._thresholds:
            found.config.optimizer_config.indexing_threshold = self._thresholds[name]
        return found

    async def index_from(self, name: str, threshold: int | None) -> None:
        """Set the size (kB of vectors) from which segments are indexed."""
        await self.client.get_collection(name)  # raises if it does not exist
        self._thresholds[name] = threshold

    async def upsert(
        self, collection: str, points: Sequence[models.PointStruct], only: models.Filter | None
    ) -> models.UpdateResult:
        """Write points. Overwrite an existing point only if it matches `only`."""
        bare = [point.id for point in points if not point.vector]
        known = await self.client.retrieve(collection, bare, with_payload=False, with_vectors=True) if bare else []
        kept: Mapping[Any, Any] = {record.id: record.vector for record in known}
        for point in points:
            point.payload = json.loads(json.dumps(point.payload), parse_float=as_qdrant_reads)
        whole = [point.model_copy(update={"vector": point.vector or kept.get(point.id) or {}}) for point in points]
        return await self.client.upsert(collection, whole, update_filter=only)

    async def update(self, collection: str, operations: Sequence[models.UpdateOperation]) -> list[models.UpdateResult]:
        """Apply operations one after the other."""
        results: list[models.UpdateResult] = []
        for one in operations:
            if isinstance(one, models.UpsertOperation) and isinstance(one.upsert, models.PointsList):
                results.append(await self.upsert(collection, one.upsert.points, one.upsert.update_filter))
            else:
                results += await self.client.batch_update_points(collection, [one])
        return results
