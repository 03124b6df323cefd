"""Checkpoints and progress of long tasks in memory, for tests and simulations. Nothing outlives the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from connectors.errors import Refused


class MemoryTasks:
    """`TaskStore` of one collection."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[int, bytes]] = {}
        self._held: set[str] = set()

    async def read(self, task: str, part: int | None = None) -> dict[int, bytes]:
        """See `TaskStore.read`."""
        return {number: state for number, state in self.stored.get(task, {}).items() if part in {None, number}}

    async def save(self, task: str, parts: Mapping[int, bytes]) -> None:
        """See `TaskStore.save`."""
        self.stored[task] = {**self.stored.get(task, {}), **parts}

    async def clear(self, task: str) -> None:
        """See `TaskStore.clear`."""
        self.stored.pop(task, None)

    @asynccontextmanager
    async def hold(self, task: str) -> AsyncIterator[None]:
        """See `TaskStore.hold`."""
        if task in self._held:
            raise Refused(f"another runs the task {task}")
        self._held.add(task)
        try:
            yield
        finally:
            self._held.discard(task)
