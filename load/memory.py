"""Resource use of processes: peak memory, sampled while they run, and processor time.

Memory is the proportional set size, so shared pages count once. Children count with their parent.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress

import psutil

_EVERY_S = 1.0
_MIB = 1024 * 1024


class MemoryWatch:
    """A sampler of each named process with its children, every second. Use it as an asynchronous context manager."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self.peak_mib: dict[str, float] = dict.fromkeys(pids, 0.0)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> MemoryWatch:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        while True:
            for name, pid in self._pids.items():
                used = await asyncio.to_thread(_family_mib, pid)
                self.peak_mib[name] = max(self.peak_mib[name], used)
            await asyncio.sleep(_EVERY_S)


def _family_mib(pid: int) -> float:
    total = 0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                used = each.memory_full_info()
                # If the kernel reports no proportional size (macOS), the resident size counts.
                total += getattr(used, "pss", 0) or used.rss
    return round(total / _MIB, 1)


def cpu_s(pids: Mapping[str, int]) -> dict[str, float]:
    """Return the processor seconds of each named process with its children, and of this process alone (`load`)."""
    return {name: _family_cpu_s(pid) for name, pid in {**pids, "load": os.getpid()}.items()}


def _family_cpu_s(pid: int) -> float:
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        family = [process] if pid == os.getpid() else [process, *process.children(recursive=True)]
        for each in family:
            with suppress(psutil.NoSuchProcess):
                used = each.cpu_times()
                total += used.user + used.system
    return total
