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

import numpy as np

from connectors.embedding.locate import locate_model
from connectors.embedding.model import Vectors, cosines, normalised
from connectors.embedding.service import EmbeddingService, EmbeddingSettings, open_embedding

_CRANFIELD = Path(__file__).resolve().parents[2] / "shared" / "data" / "cranfield" / "documents.jsonl"
_DOCUMENTS = 1400
_WARM_UP = 32
_BASELINE_BATCH = 32
# A docstring shorter than this is no document.
_SHORTEST = 80


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """Documents a second of both sides, `ratio` = value / baseline, and the cosine between their vectors."""

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
    """Embed the texts by the engine and by sentence-transformers, one after the other, each in a quiet process.

    Raises as `open_embedding` does, RuntimeError when the baseline's process fails.
    """
    service = await open_embedding(settings, cache, progress)
    try:
        chunks = [service.chunks(text) for text in texts]
        progress(f"engine: {len(texts)} documents in {sum(map(len, chunks))} chunks")
        seconds, vectors = await _measure(service, chunks)
    finally:
        await service.close()
    progress("baseline: sentence-transformers on torch")
    source = await asyncio.to_thread(locate_model, settings.model, progress)
    flat = [chunk for pieces in chunks for chunk in pieces]
    baseline_seconds, reference = await _baseline(source, flat)
    found = cosines(vectors, reference)
    return EngineFigures(
        name="engine_ratio",
        value=round(len(texts) / seconds, 1),
        unit="documents/s",
        baseline=round(len(texts) / baseline_seconds, 1),
        ratio=round(baseline_seconds / seconds, 2),
        documents=len(texts),
        chunks=len(flat),
        cosine_min=round(min(found), 4),
        cosine_mean=round(sum(found) / len(found), 4),
        model=service.identity.key,
        engine=settings.engine,
    )


async def _measure(service: EmbeddingService, chunks: Sequence[tuple[str, ...]]) -> tuple[float, Vectors]:
    await asyncio.gather(*(service.embed_documents(pieces) for pieces in chunks[:_WARM_UP]))
    started = time.perf_counter()
    found = await asyncio.gather(*(service.embed_documents(pieces) for pieces in chunks))
    seconds = time.perf_counter() - started
    whole = b"".join(vector for vectors in found for vector in vectors)
    return seconds, np.frombuffer(whole, dtype="<f4").reshape(-1, service.dimension)


async def _baseline(source: Path, texts: Sequence[str]) -> tuple[float, Vectors]:
    with tempfile.TemporaryDirectory() as scratch:
        given, result = Path(scratch) / "texts.json", Path(scratch) / "vectors.npy"
        await asyncio.to_thread(given.write_text, json.dumps(texts), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "load.engine", "--baseline", str(source), str(given), str(result)),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"the baseline's process ended with {process.returncode}")
        vectors: Vectors = await asyncio.to_thread(np.load, result)
    return float(out.split()[-1]), normalised(vectors, vectors.shape[1])


def run_baseline(source: Path, given: Path, result: Path) -> None:
    """Embed the texts as its users do, write the vectors and print the seconds. Holds torch."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 the measuring process must not hold torch

    texts = json.loads(given.read_text(encoding="utf-8"))
    model = SentenceTransformer(str(source), device="cpu")
    model.encode(texts[:_WARM_UP], batch_size=_BASELINE_BATCH)
    started = time.perf_counter()
    vectors = model.encode(texts, batch_size=_BASELINE_BATCH)
    seconds = time.perf_counter() - started
    np.save(result, vectors)
    print(seconds)


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
    parser.add_argument("--baseline", nargs=3, type=Path, metavar=("MODEL", "TEXTS", "VECTORS"), help=argparse.SUPPRESS)
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
