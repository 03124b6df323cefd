"""Decides when a role is stuck: in one batch without end, or with waiting records and no commits. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from agents.health import is_stuck
from agents.runner import RoleHealth
from connectors.kafka.offsets import Lag

Assigned = Iterable[tuple[str, int]]


# A partition may wait its turn while others of its role progress. After this many times the limit, it is unserved.
_TURNS = 2
_LATE = 2


@dataclass(slots=True)
class Awake:
    """Since when this process has run without being suspended, alone or with its machine."""

    since_s: float
    looked_s: float

    def looks(self, now_s: float, planned_s: float) -> bool:
        """Note a check; return whether it came on time. After a longer gap, a lack of progress proves nothing."""
        in_time = now_s - self.looked_s <= _LATE * planned_s
        self.looked_s = now_s
        if not in_time:
            self.since_s = now_s
        return in_time


@dataclass(slots=True)
class CommitWatch:
    """Remembers, for one role, the committed offset of each of its partitions and since when it has not moved."""

    health: RoleHealth
    since_s: float
    committed: dict[tuple[str, int], tuple[int | None, float]] = field(default_factory=dict)

    def stuck(self, lags: Iterable[Lag], assigned: Assigned, now_s: float, stall_s: float) -> str | None:
        """Return why the role is stuck, None if it is not. `assigned` are this worker's own partitions.

        A role that waits for a store is not stuck, nor is one whose batch makes progress. A role that serves some of
        its partitions but not another is stuck: a consumer may lose a partition silently.
        """
        own = set(assigned)
        found = {(lag.topic, lag.partition): lag for lag in lags if (lag.topic, lag.partition) in own}
        behind = {place: lag for place, lag in found.items() if lag.lag}
        health = self.health
        if health.waiting_for is not None or any(self._moved(place, lag) for place, lag in found.items()) or not behind:
            self.since_s = now_s
        self.committed = {
            place: (lag.committed, self.committed[place][1])
            if place in behind and health.waiting_for is None and not self._moved(place, lag)
            else (lag.committed, now_s)
            for place, lag in found.items()
        }
        still_s = now_s - self.since_s
        in_one_batch = health.busy_since_s is not None and health.finished_at_s < self.since_s
        if still_s > stall_s and (not in_one_batch or is_stuck(health, stall_s, now_s)):
            records = sum(lag.lag for lag in behind.values())
            return f"{health.role} has {records} records to read and committed nothing for {still_s:.0f} s"
        for (topic, partition), lag in behind.items():
            unserved_s = now_s - self.committed[topic, partition][1]
            if unserved_s > _TURNS * stall_s and not in_one_batch:
                place = f"{topic}/{partition}"
                return f"{health.role} has {lag.lag} records to read of {place}, unserved for {unserved_s:.0f} s"
        return None

    def _moved(self, place: tuple[str, int], lag: Lag) -> bool:
        return place not in self.committed or self.committed[place][0] != lag.committed
