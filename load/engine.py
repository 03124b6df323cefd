"""Benchmark: the embedding engine against plain sentence-transformers on torch, on the same texts, in one run.

Both get the same chunks, so that neither side cuts a text; a figure counts whole documents.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import json
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np

from connectors.embedding.locate import locate_model
from connectors.embedding.model import Vectors, cosines, normalised
from connectors.embedding.service import EmbeddingService, EmbeddingSettings, open_embedding

_CRANFIELD = Path(__file__).resolve().parents[2] / "shared" / "data" / "cranfield" / "documents.jsonl"
_DOCUMENTS = 1400
_WARM_UP = 32
_BASELINE_BATCH = 32
_SLICES = 7
# A docstring shorter than this is no document.
_SHORTEST = 80


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """Documents a second of both sides, and the cosine between their vectors.

    All three are medians over the slices: `ratio` is that of the slices' own ratios, since only the two turns of one
    slice met the same machine.
    """

    name: str
    value: float
    unit: str
    baseline: float
    ratio: float
    documents: int
    chunks: int
    cosine_min: float
    cosine_mean: float
    model: str
    engine: str


async def engine_ratio(
    texts: Sequence[str], cache: Path, settings: EmbeddingSettings, progress: Callable[[str], None]
) -> EngineFigures:
    """Embed the texts by the engine and by sentence-transformers, in slices by turns: what else the machine does
    meets both alike. Each side has a process of its own.

    Raises as `open_embedding` does, RuntimeError when the baseline's process fails.
    """
    service = await open_embedding(settings, cache, progress)
    try:
        chunks = [service.chunks(text) for text in texts]
        progress(f"{len(texts)} documents in {sum(map(len, chunks))} chunks, {_SLICES} slices by turns")
        source = await asyncio.to_thread(locate_model, settings.model, progress)
        turns, found = await _measure(service, source, chunks, progress)
    finally:
        await service.close()
    return EngineFigures(
        name="engine_ratio",
        value=round(median(own for own, _ in turns), 1),
        unit="documents/s",
        baseline=round(median(other for _, other in turns), 1),
        ratio=round(median(own / other for own, other in turns), 2),
        documents=len(texts),
        chunks=len(found),
        cosine_min=round(min(found), 4),
        cosine_mean=round(sum(found) / len(found), 4),
        model=service.identity.key,
        engine=settings.engine,
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
    """sentence-transformers in a process of its own, so that the measured one does not hold torch."""

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
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 the measured process must not hold torch

    model = SentenceTransformer(str(source), device="cpu")
    for _ in sys.stdin:
        texts = json.loads((scratch / "texts.json").read_text(encoding="utf-8"))
        started = time.perf_counter()
        vectors = model.encode(texts, batch_size=_BASELINE_BATCH, show_progress_bar=False)
        seconds = time.perf_counter() - started
        np.save(scratch / "vectors.npy", vectors)
        print(seconds, flush=True)


def corpus(documents: int) -> list[str]:
    """Return real texts: the Cranfield abstracts where they are, else docstrings of the Python standard library."""
    return list(islice(_cranfield() if _CRANFIELD.is_file() else _docstrings(), documents))


def _cranfield() -> Iterator[str]:
    with _CRANFIELD.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["body"]


def _docstrings() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in path.parts or "test" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) >= _SHORTEST:
                    yield text


def _print_table(figures: EngineFigures) -> None:
    rows = {
        f"crossfade ({figures.engine})": f"{figures.value:.1f} {figures.unit}",
        "sentence-transformers (torch)": f"{figures.baseline:.1f} {figures.unit}",
        "ratio": f"{figures.ratio:.2f}",
        "cosine, mean and least": f"{figures.cosine_mean:.4f}, {figures.cosine_min:.4f}",
        "documents, chunks": f"{figures.documents}, {figures.chunks}",
    }
    for label, value in rows.items():
        print(f"{label:32} {value:>22}", file=sys.stderr)


def main() -> int:
    """Measure, print a table on stderr and one JSON line on stdout."""
    parser = argparse.ArgumentParser(prog="python -m load.engine", description=__doc__)
    parser.add_argument("--documents", type=int, default=_DOCUMENTS)
    parser.add_argument("--model", default=EmbeddingSettings().model)
    parser.add_argument("--engine", choices=["onnx-int8", "onnx-fp32", "torch"], default="onnx-int8")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "crossfade")
    parser.add_argument("--baseline", nargs=2, type=Path, metavar=("MODEL", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.baseline:
        run_baseline(*given.baseline)
        return 0
    settings = EmbeddingSettings(model=given.model, engine=given.engine)
    figures = asyncio.run(
        engine_ratio(corpus(given.documents), given.cache, settings, lambda line: print(line, file=sys.stderr))
    )
    _print_table(figures)
    print(json.dumps(asdict(figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
