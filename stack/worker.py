"""A worker as a child process of a command: started, awaited until every agent consumes, ended with SIGTERM."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from connectors.errors import ProcessFailed
from stack import child

READY_BOUND_S = 300.0
STOP_BOUND_S = 60.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """A worker that consumes: its process, the port of its health page, and its log."""

    pid: int
    port: int
    log: Path


@asynccontextmanager
async def worker_process(
    config: Path, home: Path, *, keep: bool = False, environment: Mapping[str, str] | None = None
) -> AsyncIterator[RunningWorker]:
    """Run `crossfade worker` with a configuration file; with `keep` it is left running.

    `environment` replaces this process's. Raises ProcessFailed if the worker does not start, or does not end well.
    """
    ready = child.cleared(home / "run" / "worker-ready.json")
    log = home / "logs" / "worker.log"
    arguments = ["worker", "--config", str(config), "--home", str(home), "--ready-file", str(ready)]
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from operations.cli import main; main()", *arguments),
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=environment,
        )
    try:
        yield await _started(process, ready, log)
    finally:
        # A worker that did not start is ended, whatever `keep` says.
        if process.returncode is None and not (keep and ready.exists()):
            await child.end(process, STOP_BOUND_S)
    if not keep and process.returncode != 0:
        raise ProcessFailed(f"the worker ended with {process.returncode}; its log is {log}")


async def _started(process: asyncio.subprocess.Process, ready: Path, log: Path) -> RunningWorker:
    deadline = time.monotonic() + READY_BOUND_S
    while (port := child.port_in(ready)) is None:
        if process.returncode is not None or time.monotonic() > deadline:
            tail = await asyncio.to_thread(log.read_text, errors="replace")
            raise ProcessFailed(
                f"the worker did not start. Its log ends with:\n{tail[-2000:]}", f"The whole log: {log}"
            )
        await asyncio.sleep(_POLL_S)
    return RunningWorker(process.pid, port, log)
