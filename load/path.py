"""Benchmarks of throughput: the whole path against the engine alone, and with precomputed embeddings."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from statistics import median

import numpy as np

from connectors.embedding.service import EmbeddingService, EmbeddingSettings, open_embedding
from load.corpus import mean_bytes
from load.figures import Figure
from load.memory import cpu_s
from load.outcomes import WAIT_S
from load.place import TEXTS, VECTORS, Place, progress
from schemas.documents import DocumentSubmitted
from schemas.records import Outgoing
from topics.catalogue import SUBMITTED

_SLICES = 3
_PUBLISHED_AT_ONCE = 500
_CE_TYPE = DocumentSubmitted.ce_type.encode()


def submission(
    collection: str, document_id: str, text: str, embedding: Sequence[float] | None = None, *, kind: str | None = "load"
) -> Outgoing:
    """Return a producer's record of a document. `kind` is its metadata; None if the collection has no metadata."""
    data: dict[str, object] = {"collection": collection, "id": document_id, "text": text}
    if kind is not None:
        data["metadata"] = {"kind": kind}
    if embedding is not None:
        data["embedding"] = embedding
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", uuid.uuid4().hex.encode()),
        ("ce_source", b"crossfade/load"),
        ("ce_type", _CE_TYPE),
    )
    return Outgoing(SUBMITTED, f"{collection}/{document_id}".encode(), json.dumps(data).encode(), headers)


async def path_ratio(at: Place, texts: Sequence[str]) -> Figure:
    """Embed the same texts with the engine alone and through the whole path, in alternating slices.

    The engine alone has the machine to itself, while the stack is idle. Through the path, a document counts when both
    stores have it.
    """
    service = await open_embedding(EmbeddingSettings(), at.home / "models", progress)
    turns: list[tuple[float, float]] = []
    try:
        await _alone(service, texts[:32])
        await through(at, TEXTS, [submission(TEXTS, f"warm-{n}", text) for n, text in enumerate(texts[:64])])
        for number in range(_SLICES):
            part = texts[number::_SLICES]
            own = len(part) / await _alone(service, part)
            records = [submission(TEXTS, f"path-{number}-{n}", text) for n, text in enumerate(part)]
            whole = len(part) / await through(at, TEXTS, records)
            turns.append((whole, own))
            progress(f"slice {number + 1}: {whole:.1f} documents/s through the path, {own:.1f} by the engine alone")
    finally:
        await service.close()
    return Figure(
        "path_ratio",
        round(median(whole for whole, _ in turns), 1),
        "documents/s",
        baseline=round(median(own for _, own in turns), 1),
        ratio=round(median(whole / own for whole, own in turns), 3),
        details={"documents": len(texts), "mean_text_bytes": mean_bytes(texts)},
    )


async def _alone(service: EmbeddingService, texts: Sequence[str]) -> float:
    started = time.perf_counter()
    await asyncio.gather(*(service.embed_documents(service.chunks(text)) for text in texts))
    return time.perf_counter() - started


async def through(at: Place, collection: str, records: Sequence[Outgoing]) -> float:
    """Publish records. Return the seconds until both stores reported every record. Raises TimeoutError."""
    ids = [(record.key or b"").decode().partition("/")[2] for record in records]
    expected = [at.outcomes.expect(one, "qdrant") for one in ids] + [at.outcomes.expect(one, "legacy") for one in ids]
    started = time.perf_counter()
    for first in range(0, len(records), _PUBLISHED_AT_ONCE):
        await at.bus.publish(records[first : first + _PUBLISHED_AT_ONCE])
    async with asyncio.timeout(WAIT_S):
        finished = await asyncio.gather(*expected)
    return max(finished) - started


async def given_embeddings(at: Place, texts: Sequence[str], documents: int) -> Figure:
    """Send documents with precomputed embeddings, which are kept in the table and in Qdrant.

    The vectors are those of real texts, each moved a little, so that searches over them are as hard as real searches.
    """
    service = await open_embedding(EmbeddingSettings(), at.home / "models", progress)
    try:
        found = await service.embed_documents([service.chunks(text)[0] for text in texts[:500]])
    finally:
        await service.close()
    real = np.frombuffer(b"".join(found), dtype="<f4").reshape(len(found), -1)
    rng = np.random.default_rng(1)
    records: list[Outgoing] = []
    for number in range(documents):
        vector = real[number % len(real)] + rng.normal(0, 0.03, real.shape[1])
        vector /= np.linalg.norm(vector)
        text = texts[number % len(texts)]
        records.append(submission(VECTORS, f"given-{number}", text, [round(float(x), 7) for x in vector]))
    # The servers' virtual machines first compile their hot code: their first seconds are not typical of a migration.
    await through(at, VECTORS, records[: documents // 5])
    measured = records[documents // 5 :]
    before = cpu_s(at.pids())
    took = await through(at, VECTORS, measured)
    used = {name: round((now - before[name]) * 1000 / len(measured), 3) for name, now in cpu_s(at.pids()).items()}
    return Figure(
        "given_embeddings_documents_s",
        round(len(measured) / took, 1),
        "documents/s",
        details={
            "documents": len(measured),
            "mean_text_bytes": mean_bytes(texts),
            "seconds": round(took, 1),
            "cpu_ms_per_document": used,
        },
    )
