"""When a role is stuck: in one batch without end, or records wait for it and nothing is committed. Pure, over facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agents.health import is_stuck
from agents.runner import RoleHealth
from connectors.kafka.tail import Lag

Assigned = Iterable[tuple[str, int]]


@dataclass(slots=True)
class CommitWatch:
    """Remembers, for one role, what was committed in its partitions and since when that stands still."""

    health: RoleHealth
    since_s: float
    committed: Mapping[tuple[str, int], int | None] = field(default_factory=dict)

    def stuck(self, lags: Iterable[Lag], assigned: Assigned, now_s: float, stall_s: float) -> str | None:
        """Return why the role is stuck, None where it is not. `assigned` are this worker's own partitions.

        A role that waits for a store is not stuck, nor is one whose batch makes progress.
        """
        own = set(assigned)
        found = {(lag.topic, lag.partition): lag for lag in lags if (lag.topic, lag.partition) in own}
        committed = {place: lag.committed for place, lag in found.items()}
        behind = sum(lag.lag for lag in found.values())
        health = self.health
        if committed != self.committed or not behind or health.waiting_for is not None:
            self.committed, self.since_s = committed, now_s
            return None
        still_s = now_s - self.since_s
        in_one_batch = health.busy_since_s is not None and health.finished_at_s < self.since_s
        if still_s <= stall_s or (in_one_batch and not is_stuck(health, stall_s, now_s)):
            return None
        return f"{health.role} has {behind} records to read and committed nothing for {still_s:.0f} s"
