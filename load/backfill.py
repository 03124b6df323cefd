"""Benchmarks of backfill and verification: copy a table with embeddings to Qdrant, and prove that it is there.

Both run the commands that an operator runs, in their own processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from load.figures import Figure
from load.live import live_writes
from load.memory import MemoryWatch, cpu_s
from load.place import ROWS, Place, progress

_COMMAND = (sys.executable, "-c", "from operations.cli import main; main()")


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that succeeded: its JSON document, wall seconds, CPU seconds of the parts, and its peak memory."""

    document: dict[str, Any]
    seconds: float
    cpu_s: dict[str, float]
    peak_mib: float


async def backfill_and_verify(at: Place, texts: Sequence[str], *, live: bool) -> list[Figure]:
    """Copy the table of rows to Qdrant, and prove that both hold the same. With `live`, rows change meanwhile.

    The target is the embedded engine, or, over gRPC, the server that CROSSFADE_QDRANT_URL names. The proof's report is
    `verify.html` in the home.
    """
    async with AsyncExitStack() as resources:
        rows = await at.sql.fetchval(f"SELECT count(*) FROM {ROWS}")
        writes = await resources.enter_async_context(live_writes(at, texts, rows)) if live else Counter[str]()
        found = await _backfill_and_verify(at, rows)
        progress(f"written meanwhile: {dict(writes)}")
    return found


async def _backfill_and_verify(at: Place, rows: int) -> list[Figure]:
    name = "backfill_grpc_points_s" if os.environ.get("CROSSFADE_QDRANT_URL") else "backfill_points_s"
    progress(f"{rows} rows into Qdrant")
    filled = await _run(at, "backfill", ROWS, "--restart", "--json")
    filled_s = (filled.document["filled_at_ms"] - filled.document["started_at_ms"]) / 1000
    proved = await _run(at, "verify", ROWS, "--restart", "--json", "--html", str(at.home / "verify.html"))
    return [
        Figure(
            name,
            round(filled.document["rows"] / filled_s),
            "points/s",
            details={
                "points": filled.document["points"],
                "seconds": round(filled_s, 1),
                "index_seconds": round(filled.seconds - filled_s, 1),
                "recall": round(filled.document["recall"], 4),
                "cpu_s": filled.cpu_s,
            },
        ),
        Figure("backfill_peak_mib", filled.peak_mib, "MiB", details={"rows": rows}),
        Figure(
            "verify_rows_s",
            round(proved.document["legacy_documents"] / proved.seconds),
            "rows/s",
            details={
                "rows": proved.document["legacy_documents"],
                "seconds": round(proved.seconds, 1),
                "differences": proved.document["differences"],
                "peak_mib": proved.peak_mib,
                "cpu_s": proved.cpu_s,
            },
        ),
    ]


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _run(at: Place, *arguments: str) -> Ran:
    before, began, children = cpu_s(at.pids()), time.monotonic(), _children_cpu_s()
    process = await asyncio.create_subprocess_exec(
        *_COMMAND,
        *arguments,
        *("--config", str(at.home / "bench.toml"), "--home", str(at.home)),
        stdout=asyncio.subprocess.PIPE,
    )
    async with MemoryWatch({"command": process.pid}) as memory:
        output, _ = await process.communicate()
    seconds = time.monotonic() - began
    if process.returncode != 0:
        raise RuntimeError(f"crossfade {' '.join(arguments)} ended with {process.returncode}")
    after = cpu_s(at.pids())
    used = {name: round(after[name] - before[name], 1) for name in ("qdrant", "worker")}
    used["command"] = round(_children_cpu_s() - children, 1)
    return Ran(json.loads(output), seconds, used, memory.peak_mib["command"])
