"""`make bench`: every figure from one run. Text on stderr, one JSON line a figure on stdout."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import psutil

from connectors.embedding.settings import EmbeddingSettings
from load import corpus
from load.backfill import backfill_and_verify
from load.engine import engine_ratio
from load.figures import Figure, show
from load.freshness import answers, freshness_commit, freshness_publish
from load.gates import simulated_gates
from load.memory import MemoryWatch
from load.path import given_embeddings, path_ratio
from load.place import VECTORS, Place, place, progress
from load.rollout import rollout
from load.rows import make_rows
from migration.preflight.tables import follow_advice

STAGES = ("engine", "gates", "path", "freshness", "given", "answers", "rollout", "backfill")


async def run(
    home: Path, stages: list[str], documents: int, points: int, seconds: float, rows: int, live: bool
) -> None:
    """Run the stages in order, and show each figure as soon as it is measured."""
    progress(f"{psutil.cpu_count()} cores, load {psutil.getloadavg()[0]:.1f} at the beginning")
    texts = await asyncio.to_thread(corpus.documents, documents)
    if "engine" in stages:
        show([await engine_ratio(texts[:420], home / "models", EmbeddingSettings(), progress)])
    if "gates" in stages:
        progress("simulated canaries")
        show(await asyncio.to_thread(simulated_gates))
    if set(stages) <= {"engine", "gates"}:
        return
    fill = partial(make_rows, count=rows if "backfill" in stages else 0, texts=texts)
    async with place(home, fill) as at, MemoryWatch(at.pids()) as memory:
        await _measure(at, stages, texts, points, seconds)
        if "backfill" in stages:
            show(await backfill_and_verify(at, texts, live=live))
        show(_memory(memory))


async def _measure(at: Place, stages: list[str], texts: list[str], points: int, seconds: float) -> None:
    if "path" in stages:
        progress("the whole path against the engine alone")
        show([await path_ratio(at, texts)])
    if "freshness" in stages:
        progress(f"freshness at 20 documents/s, {seconds:.0f} s each way")
        show(await freshness_publish(at, texts, seconds))
        show(await freshness_commit(at, texts, seconds))
    if {"given", "answers", "rollout"} & set(stages):
        progress(f"{points} documents with embeddings")
        show([await given_embeddings(at, texts, points)])
    if "answers" in stages:
        progress(f"questions at 20/s on {points} points, {seconds:.0f} s")
        await follow_advice(at.settings, VECTORS, progress)
        show(await answers(at, corpus.questions(), seconds, points))
    if "rollout" in stages:
        progress(f"a rollout at 50 questions/s on {points} points")
        await follow_advice(at.settings, VECTORS, progress)
        show(await rollout(at, corpus.questions(), seconds))


def _memory(watch: MemoryWatch) -> list[Figure]:
    return [Figure(f"{name}_peak_mib", value, "MiB") for name, value in watch.peak_mib.items()]


def main() -> int:
    """Run the benchmark in a temporary folder, which is removed, or in `--home`, which is kept."""
    parser = argparse.ArgumentParser(prog="python -m load.bench", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"which figures (default: all of {STAGES})")
    parser.add_argument("--documents", type=int, default=1200, help="texts that are embedded")
    parser.add_argument("--points", type=int, default=20_000, help="documents with embeddings given")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each open loop")
    parser.add_argument("--rows", type=int, default=200_000, help="rows that are backfilled and verified")
    parser.add_argument("--live", action="store_true", help="change the rows while they are backfilled and verified")
    parser.add_argument("--home", type=Path, help="data folder to use and keep")
    given = parser.parse_args()
    unknown = sorted(set(given.stages) - set(STAGES))
    if unknown:
        parser.error(f"unknown stage {', '.join(unknown)}; there are {', '.join(STAGES)}")
    home = given.home or Path(tempfile.mkdtemp(prefix="crossfade-bench-"))
    try:
        stages = given.stages or list(STAGES)
        asyncio.run(run(home.absolute(), stages, given.documents, given.points, given.seconds, given.rows, given.live))
    finally:
        if given.home is None:
            shutil.rmtree(home, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
