"""Runs a worker in this process until a signal: opens everything, reports when ready, drains and closes."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from agents.assembly import Opened, open_all
from agents.wiring import RoleName
from agents.worker import Worker
from connectors.errors import Misconfigured
from connectors.failpoints import FILE, arm, rearm
from operations.context import WRONG_USE
from operations.errors import CommandError
from operations.observability import set_up
from operations.preparing import check_tables, prepare_capture, prepare_topics
from operations.stack.layout import write_private
from schemas.settings import Settings

Progress = Callable[[str], None]
# New objects before the youngest generation is collected; Python's default is 700.
_GARBAGE_OBJECTS = 20_000
_PARENT_POLL_S = 0.5
T = TypeVar("T")


async def run_worker(
    settings: Settings,
    home: Path,
    roles: Sequence[RoleName],
    progress: Progress,
    ready_file: Path | None = None,
    supervisor: int | None = None,
) -> None:
    """Prepare, consume until SIGTERM or SIGINT, drain. Raises CommandError when the watchdog found a role stuck.

    `ready_file` gets the port of the health page as JSON once every agent consumes, for who started this process.
    With the pid of a `supervisor` it drains, too, when that process is no longer its parent.
    """
    # Faust's consumers run on threads, whose loops are of the policy's kind.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    for place in arm(os.environ):
        progress(f"the failpoint {place} is armed")
    if FILE in os.environ:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, rearm, Path(os.environ[FILE]))
    orphaned = asyncio.create_task(_stop_without(supervisor, stop)) if supervisor is not None else None
    try:
        await _run(settings, home, roles, progress, ready_file, stop)
    finally:
        if orphaned is not None:
            orphaned.cancel()


async def _run(
    settings: Settings,
    home: Path,
    roles: Sequence[RoleName],
    progress: Progress,
    ready_file: Path | None,
    stop: asyncio.Event,
) -> None:
    telemetry = set_up(os.environ)
    try:
        opened = await _unless(stop, _prepared(settings, home, roles, progress))
    except Misconfigured as error:
        # To start again would change nothing, and by its exit code a supervisor knows.
        raise CommandError(
            str(error), "Look at everything that is configured: crossfade config check", WRONG_USE
        ) from None
    if opened is None:
        progress("stopped before the worker was ready")
        return
    _collect_garbage_rarely()

    def ready(port: int) -> None:
        progress(f"worker is ready: {', '.join(roles)}; health page http://127.0.0.1:{port}/readyz")
        if ready_file is not None:
            write_private(ready_file, json.dumps({"port": port, "pid": os.getpid()}))

    try:
        worker = Worker(opened, roles, home, telemetry)
        healthy = await worker.run(stop, ready)
    finally:
        await opened.close()
    if not healthy:
        raise CommandError("a role was stuck; the worker ended so that it can be started again")
    progress("worker drained and stopped")


async def _stop_without(supervisor: int, stop: asyncio.Event) -> None:
    """Set `stop` when the supervisor ended: whoever takes its place starts a worker of its own."""
    while os.getppid() == supervisor:  # noqa: ASYNC110 - the end of another process is no event of this loop
        await asyncio.sleep(_PARENT_POLL_S)
    stop.set()


async def _prepared(settings: Settings, home: Path, roles: Sequence[RoleName], progress: Progress) -> Opened:
    await check_tables(settings, progress, mend=False)
    await prepare_topics(settings, progress)
    if "capture" in roles:
        await prepare_capture(settings, progress)
    return await open_all(settings, home, progress)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what the work returns; where `stop` comes first, cancel it, wait for its end, and return None."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


def _collect_garbage_rarely() -> None:
    """What was opened lives as long as the process, and what events leave behind is nearly all free of cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_OBJECTS, 20, 20)
