"""Coroutines driven by hand: each call of a port is a point, and the driver chooses there what happens next.

There is no clock and no real event loop, so a run is a function of the choices. Nothing here knows the ports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")
IDLE = "idle"
# More turns than any batch takes. Without a limit, a handler that never reaches a point would block the run for ever.
MOST_TURNS = 10_000


class Fault(Enum):
    """What happens at a point."""

    NONE = "as it should"
    DOWN = "nobody answers"
    BUSY = "the call fails and may be tried again"
    REFUSED = "refused for good, where the port can refuse"
    HALF = "done for the first half, then nobody answers"
    LOST = "done, and the acknowledgement is lost"
    LATE = "timed out, and done later"


class Violation(BaseException):
    """An invariant that does not hold. No handler catches it."""


class Point:
    """An awaitable whose label the driver sees; the driver answers with a fault."""

    __slots__ = ("label",)

    def __init__(self, label: str) -> None:
        self.label = label

    def __await__(self) -> Generator[Point, Fault, Fault]:
        return (yield self)


@contextmanager
def running() -> Iterator[None]:
    """Give this thread an event loop that never runs: a coroutine that waits for ever asks it for a future."""
    before, loop = asyncio._get_running_loop(), asyncio.BaseEventLoop()
    asyncio._set_running_loop(loop)
    try:
        yield
    finally:
        asyncio._set_running_loop(before)
        loop.close()


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, without a fault at any point."""
    answer: Fault | None = None
    while True:
        try:
            found = coroutine.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        answer = Fault.NONE if isinstance(found, Point) else None


class Process:
    """A coroutine that waits at a point: `point` is its label, `IDLE` if it waits for records, None if it has ended.

    `stuck`: it waits for something that never comes, as an agent does that ended with an error.
    """

    def __init__(self, name: str, coroutine: Coroutine[Any, Any, None], trace: list[str]) -> None:
        self.name = name
        self.point: str | None = IDLE
        self.stuck = False
        self.error: Exception | None = None
        self._coroutine = coroutine
        self._trace = trace
        self._trouble: dict[str, tuple[Fault, int]] = {}
        self._resume(None)

    @property
    def idle(self) -> bool:
        """Whether the process has nothing to do until it gets records."""
        return self.point is None or self.point == IDLE or self.stuck

    def step(self, points: int, fault: Fault, times: int = 1) -> None:
        """Pass up to `points` points.

        The fault happens at the last one, and again at that point until it has happened `times` times.
        """
        for left in range(points - 1, -1, -1):
            if self.point is None or self.stuck:
                return
            if left == 0 and fault is not Fault.NONE:
                self._trouble[self.point] = (fault, times)
            self.go()
            if self.idle:
                self._trouble.clear()
                return

    def go(self) -> None:
        """Pass one point."""
        label = self.point or IDLE
        fault, times = self._trouble.pop(label, (Fault.NONE, 0))
        if times > 1:
            self._trouble[label] = (fault, times - 1)
        self._trace.append(f"{self.name} {label}" if fault is Fault.NONE else f"{self.name} {label}: {fault.name}")
        self._resume(fault)

    def kill(self) -> None:
        """End the process at its current point, as a crash does: it does nothing more."""
        self._coroutine.close()
        self.point = None

    def _resume(self, answer: Fault | None) -> None:
        for _ in range(MOST_TURNS):
            try:
                found = self._coroutine.send(answer)
            except StopIteration:
                self.point = None
                return
            except Exception as error:
                self.point, self.error = None, error
                return
            if isinstance(found, Point):
                self.point = found.label
                return
            if found is not None:
                self.stuck = True
                return
            answer = None
        raise Violation(f"{self.name} never comes to a point")
