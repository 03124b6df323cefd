"""The open-loop generator: arrivals come when they are due, whether or not earlier ones were answered.

A latency counts from the moment when its arrival was due. So a system that stalls cannot hide the stall by receiving
fewer requests (coordinated omission).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

Send = Callable[[int, float], Awaitable[None]]
"""Called with the number of the arrival and the time (`time.perf_counter`) at which it was due."""


class Overloaded(RuntimeError):
    """More arrivals are unanswered than the bound allows: the rate cannot be sustained."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Poisson arrivals at `rate_s` a second for `seconds`. The same seed gives the same arrivals."""

    rate_s: float
    seconds: float
    seed: int = 1

    def offsets(self) -> Iterator[float]:
        """Yield the seconds from the beginning to each arrival."""
        rng = random.Random(self.seed)
        at = rng.expovariate(self.rate_s)
        while at < self.seconds:
            yield at
            at += rng.expovariate(self.rate_s)


async def open_loop(schedule: Schedule, send: Send, *, in_flight: int = 1000) -> int:
    """Start `send` for each arrival when it is due. Return the number of arrivals when all of them are finished.

    Raises an ExceptionGroup with Overloaded above `in_flight` unfinished arrivals, or with the first failure of `send`.
    """
    begun = time.perf_counter()
    count = 0
    running: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as group:
        for offset in schedule.offsets():
            await asyncio.sleep(max(0.0, begun + offset - time.perf_counter()))
            if len(running) >= in_flight:
                raise Overloaded(f"{in_flight} arrivals are unanswered after {offset:.0f} s at {schedule.rate_s:g}/s")
            task = group.create_task(_one(send, count, begun + offset))
            running.add(task)
            task.add_done_callback(running.discard)
            count += 1
    return count


async def _one(send: Send, number: int, due: float) -> None:
    await send(number, due)
