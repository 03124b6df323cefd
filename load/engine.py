"""Benchmark: the embedding engine against plain sentence-transformers on torch, on the same texts, in one run.

Both get the same chunks, so that neither side truncates a text. A figure counts whole documents.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from connectors.embedding.locate import locate_model
from connectors.embedding.model import Vectors, cosines, normalised
from connectors.embedding.service import EmbeddingService, EmbeddingSettings, open_embedding
from load.corpus import mean_bytes
from load.figures import Figure

_WARM_UP = 32
_BASELINE_BATCH = 32
_SLICES = 7


async def engine_ratio(
    texts: Sequence[str], cache: Path, settings: EmbeddingSettings, progress: Callable[[str], None]
) -> Figure:
    """Embed the texts with the engine and with sentence-transformers, in alternating slices.

    The alternation makes other load on the machine affect both alike. Each side has its own process.

    Raises as `open_embedding` does, and RuntimeError if the baseline's process fails.
    """
    service = await open_embedding(settings, cache, progress)
    try:
        chunks = [service.chunks(text) for text in texts]
        progress(f"{len(texts)} documents in {sum(map(len, chunks))} chunks, {_SLICES} slices by turns")
        source = await asyncio.to_thread(locate_model, settings.model, progress)
        turns, found = await _measure(service, source, chunks, progress)
    finally:
        await service.close()
    return Figure(
        "engine_ratio",
        round(median(own for own, _ in turns), 1),
        "documents/s",
        baseline=round(median(other for _, other in turns), 1),
        ratio=round(median(own / other for own, other in turns), 2),
        details={
            "documents": len(texts),
            "mean_text_bytes": mean_bytes(texts),
            "chunks": len(found),
            "cosine_min": round(min(found), 4),
            "cosine_mean": round(sum(found) / len(found), 4),
            "model": service.identity.key,
            "engine": settings.engine,
        },
    )


async def _measure(
    service: EmbeddingService, source: Path, chunks: Sequence[tuple[str, ...]], progress: Callable[[str], None]
) -> tuple[list[tuple[float, float]], list[float]]:
    turns: list[tuple[float, float]] = []
    found: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        baseline = await _Baseline.started(source, Path(scratch))
        try:
            await asyncio.gather(*(service.embed_documents(pieces) for pieces in chunks[:_WARM_UP]))
            await baseline.embed([chunk for pieces in chunks[:_WARM_UP] for chunk in pieces])
            for start in range(_SLICES):
                part = chunks[start::_SLICES]
                own, vectors = await _embed(service, part)
                other, reference = await baseline.embed([chunk for pieces in part for chunk in pieces])
                turns.append((len(part) / own, len(part) / other))
                found += cosines(vectors, reference)
                progress(f"slice {start + 1}: {len(part) / own:.1f} and {len(part) / other:.1f} documents/s")
        finally:
            await baseline.close()
    return turns, found


async def _embed(service: EmbeddingService, chunks: Sequence[tuple[str, ...]]) -> tuple[float, Vectors]:
    started = time.perf_counter()
    found = await asyncio.gather(*(service.embed_documents(pieces) for pieces in chunks))
    seconds = time.perf_counter() - started
    whole = b"".join(vector for vectors in found for vector in vectors)
    return seconds, np.frombuffer(whole, dtype="<f4").reshape(-1, service.dimension)


class _Baseline:
    """sentence-transformers in its own process, so that the measured process does not load torch."""

    def __init__(self, process: asyncio.subprocess.Process, scratch: Path) -> None:
        self._process = process
        self._given, self._result = scratch / "texts.json", scratch / "vectors.npy"

    @staticmethod
    async def started(source: Path, scratch: Path) -> _Baseline:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "load.engine", "--baseline", str(source), str(scratch)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return _Baseline(process, scratch)

    async def embed(self, texts: Sequence[str]) -> tuple[float, Vectors]:
        await asyncio.to_thread(self._given.write_text, json.dumps(texts), encoding="utf-8")
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the baseline's process has no pipes")
        self._process.stdin.write(b"go\n")
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the baseline's process ended")
        vectors: Vectors = await asyncio.to_thread(np.load, self._result)
        return float(line), normalised(vectors, vectors.shape[1])

    async def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()


def run_baseline(source: Path, scratch: Path) -> None:
    """For each line on stdin embed the given texts as users of sentence-transformers do, and print the seconds."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 the measured process must not load torch

    model = SentenceTransformer(str(source), device="cpu")
    for _ in sys.stdin:
        texts = json.loads((scratch / "texts.json").read_text(encoding="utf-8"))
        started = time.perf_counter()
        vectors = model.encode(texts, batch_size=_BASELINE_BATCH, show_progress_bar=False)
        seconds = time.perf_counter() - started
        np.save(scratch / "vectors.npy", vectors)
        print(seconds, flush=True)


def main() -> int:
    """Embed texts as the baseline; `load.bench` computes the figures."""
    parser = argparse.ArgumentParser(prog="python -m load.engine", description=run_baseline.__doc__)
    parser.add_argument("--baseline", nargs=2, type=Path, metavar=("MODEL", "FOLDER"), required=True)
    run_baseline(*parser.parse_args().baseline)
    return 0


if __name__ == "__main__":
    sys.exit(main())
