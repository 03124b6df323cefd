"""Recomputes a sample of the computed vectors: the only way to find a wrong vector that carries its own checksum.

The model is opened only here, and only if there is something to compute.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from zlib import crc32

import numpy as np

from connectors.errors import Misconfigured
from connectors.ports import Embedder
from domain.comparison import Difference, Disagreement
from domain.points import StoredChunk
from migration.collection import CollectionStores
from migration.verify.compare import Look, look_locked
from migration.verify.result import Sample
from schemas.content import content_hash

OpenEmbedder = Callable[[AsyncExitStack], Awaitable[Embedder]]
"""Opens the model of the collection; the given stack closes it."""
LEAST_COSINE = 0.99
_PAGE = 32


async def sample(
    stores: CollectionStores, open_embedder: OpenEmbedder, ids: Sequence[str]
) -> tuple[Sample, list[Difference]]:
    """Cut and embed the texts of the documents' rows again; return what was compared, and the documents that differ.

    Raises Misconfigured if the model is not the collection's, StoreUnavailable, EmbeddingUnavailable.
    """
    done = Sample()
    found: list[Difference] = []
    if not ids:
        return done, found
    async with AsyncExitStack() as opened:
        embedder = await open_embedder(opened)
        if stores.model is not None and crc32(embedder.model_key.encode()) != stores.model:
            raise Misconfigured(f"{stores.name} is not by the configured model {embedder.model_key}")
        for start in range(0, len(ids), _PAGE):
            await _compare(stores, ids[start : start + _PAGE], embedder, done, found)
    done.wrong = len(found)
    return done, found


async def _compare(
    stores: CollectionStores, ids: Sequence[str], embedder: Embedder, done: Sample, found: list[Difference]
) -> None:
    seen = await look_locked(stores, ids)
    rows = await stores.table.rows(ids)
    texts = {
        i: rows[i].content.full_text()
        for i in ids
        if i in rows and _same(seen, i, content_hash(rows[i].content)) and _computed(seen.points.get(i, ()))
    }
    pieces = dict(zip(texts, await embedder.chunked(list(texts.values())), strict=True))
    vectors = iter(await embedder.embed_documents([piece for some in pieces.values() for piece in some]))
    for document_id, some in pieces.items():
        recomputed = [next(vectors) for _ in some]
        points = [p for p in sorted(seen.points[document_id], key=lambda p: p.chunk) if not p.deleted]
        done.documents += 1
        cosine = min(map(_cosine, recomputed, [p.vector or b"" for p in points]), default=-1.0)
        same = [p.text for p in points] == list(some)
        if same and cosine >= LEAST_COSINE:
            done.lowest_cosine = min(cosine, done.lowest_cosine if done.lowest_cosine is not None else 1.0)
            continue
        reason = Disagreement.VECTOR if same else Disagreement.PAYLOAD
        note = f"wrong vector: cosine {cosine:.3f} to the one computed again" if same else "wrong payload: text"
        facts = seen.facts[document_id]
        version = max(point.version for point in points)
        legacy_version = facts.version if facts else None
        found.append(Difference(document_id, "stale", reason, legacy_version, version, note=note))


def _same(seen: Look, document_id: str, hashed: str) -> bool:
    """Return whether a document was equal and its row has not changed since."""
    facts = seen.facts[document_id]
    return document_id not in seen.differences and facts is not None and facts.content_hash == hashed


def _computed(points: Sequence[StoredChunk]) -> bool:
    visible = [p for p in points if not p.deleted]
    return bool(visible) and all(not p.precomputed for p in visible)


def _cosine(one: bytes, other: bytes) -> float:
    if len(one) != len(other):
        return -1.0
    a, b = (np.frombuffer(v, "<f4").astype(np.float64) for v in (one, other))
    lengths = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / lengths if lengths else -1.0
