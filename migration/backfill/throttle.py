"""Polls once a second what a backfill may slow down, and lets the ranges continue or wait. Decides nothing itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from domain.pacing import Allowance, Limits, Seen, next_allowance

LOOK_S = 1.0


class Pace:
    """The pace of a backfill. As an asynchronous context manager it polls while it is open. `look` never raises."""

    def __init__(self, look: Callable[[], Awaitable[Seen]], limits: Limits) -> None:
        self._look, self._limits = look, limits
        self._allowance = Allowance(1, "beginning slowly")
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    @property
    def reason(self) -> str | None:
        """Why fewer ranges than possible are worked on; None if all are."""
        return self._allowance.reason

    @property
    def stands(self) -> bool:
        """Whether no range may continue now."""
        return self._allowance.parallel == 0

    async def turn(self, number: int) -> None:
        """Wait until the `number`-th of the parallel ranges, counted from 0, may continue."""
        async with self._changed:
            await self._changed.wait_for(lambda: number < self._allowance.parallel)

    async def __aenter__(self) -> Self:
        await self._once()
        self._task = asyncio.create_task(self._watch(), name="backfill pace")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self._once()

    async def _once(self) -> None:
        allowance = next_allowance(self._allowance, await self._look(), self._limits)
        async with self._changed:
            self._allowance = allowance
            self._changed.notify_all()
