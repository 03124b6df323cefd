"""A worker as a child process: its ready file and its orderly end. Standard library only: see `supervisor`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from asyncio.subprocess import Process
from pathlib import Path


def cleared(ready_file: Path) -> Path:
    """Remove the ready file of an earlier worker, and create its folder."""
    ready_file.parent.mkdir(parents=True, exist_ok=True)
    ready_file.unlink(missing_ok=True)
    return ready_file


def port_in(ready_file: Path) -> int | None:
    """Return the port of the health page that a ready worker wrote, None if the file is missing or incomplete."""
    try:
        return int(json.loads(ready_file.read_text(encoding="utf-8"))["port"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


async def end(process: Process, drain_s: float) -> bool:
    """End a process by SIGTERM, and kill it if that takes longer than `drain_s`; return whether it ended by itself."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), drain_s)
        return True
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    return False
