"""How fast bulk work may run concurrently with live writes, decided from measurements. No clock and no waiting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Run up to `parallel` ranges at a time. They wait while a role is more than `lag_s` or `lag_messages` behind.

    `lag_s` is in seconds. While the database executes more than `running` statements, fewer ranges run.
    """

    parallel: int = 4
    lag_s: float = 30.0
    lag_messages: int = 20_000
    running: int = 32


@dataclass(frozen=True, slots=True)
class Seen:
    """One measurement: each role's lag as (messages, seconds or None if unknown), and the running statements.

    `lags` is None if the brokers did not answer, `running` is None if the database did not.
    """

    lags: Mapping[str, tuple[int, float | None]] | None
    running: int | None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many ranges may run at a time, and why not the maximum."""

    parallel: int
    reason: str | None = None


def next_allowance(now: Allowance, seen: Seen, limits: Limits) -> Allowance:
    """Return the next allowance: it drops at once, resumes below half of the lag limits, and grows one by one."""
    if seen.paused:
        return Allowance(0, "paused by an operator")
    if seen.lags is None or seen.running is None:
        return Allowance(0, "the brokers do not answer" if seen.lags is None else "the database does not answer")
    share = 0.5 if now.parallel == 0 and now.reason else 1.0
    for role, (messages, seconds) in seen.lags.items():
        if messages > limits.lag_messages * share:
            return Allowance(0, f"the {role} is {messages} records behind")
        if messages and (seconds or 0.0) > limits.lag_s * share:
            return Allowance(0, f"the {role} is {seconds:.0f} s behind")
    if seen.running > limits.running:
        return Allowance(max(1, now.parallel // 2), f"the database executes {seen.running} statements")
    parallel = min(limits.parallel, now.parallel + 1)
    return Allowance(parallel, None if parallel == limits.parallel else "beginning slowly")


@dataclass(frozen=True, slots=True)
class Rate:
    """Rows per second over the last samples, each (seconds, rows so far)."""

    samples: tuple[tuple[float, int], ...] = ()

    def with_sample(self, now_s: float, rows: int, window_s: float = 60.0) -> Rate:
        """Return the rate with another sample and without the samples that are too old."""
        kept = [sample for sample in self.samples if sample[0] >= now_s - window_s]
        return Rate((*kept, (now_s, rows)))

    @property
    def per_s(self) -> float:
        """Rows per second, 0 while unknown."""
        if len(self.samples) < 2 or self.samples[-1][0] <= self.samples[0][0]:
            return 0.0
        (first_s, first), (last_s, last) = self.samples[0], self.samples[-1]
        return (last - first) / (last_s - first_s)

    def eta_s(self, left: int) -> float | None:
        """Return the seconds until that many rows are done, None while unknown."""
        return left / self.per_s if self.per_s > 0 else None
