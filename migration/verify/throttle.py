"""A limit on this process's share of a core."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_LONGEST_PAUSE_S = 5.0


class Throttle:
    """Limits this process to a share of a core: it measures its own CPU time, and sleeps. `share` None: full speed."""

    def __init__(
        self,
        share: float | None = None,
        *,
        used_s: Callable[[], float] = time.process_time,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = share
        self._used_s, self._now_s = used_s, now_s
        self._begun = (used_s(), now_s())

    @property
    def slow(self) -> bool:
        """Whether there is a limit."""
        return self._share is not None

    def owed_s(self) -> float:
        """Return how long to sleep to keep within the share."""
        if self._share is None:
            return 0.0
        used, now = self._used_s() - self._begun[0], self._now_s() - self._begun[1]
        return max(0.0, used / self._share - now)

    async def pause(self) -> None:
        """Sleep for the time owed, at most a few seconds: the rest is owed at the next pause."""
        owed = self.owed_s()
        if owed > 0:
            await asyncio.sleep(min(owed, _LONGEST_PAUSE_S))
