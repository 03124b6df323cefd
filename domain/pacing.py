"""How fast bulk work may go beside live writes: decided from what was measured. No clock, and nothing waits here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Up to `parallel` ranges at a time; they wait while a role is more than `lag_s` seconds or `lag_messages` behind.

    While the database executes more than `running` statements, there are fewer of them.
    """

    parallel: int = 4
    lag_s: float = 30.0
    lag_messages: int = 20_000
    running: int = 32


@dataclass(frozen=True, slots=True)
class Seen:
    """One look: each role's lag as (messages, seconds or None where it is not known), and the running statements.

    None: the brokers, or the database, did not answer.
    """

    lags: Mapping[str, tuple[int, float | None]] | None
    running: int | None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many ranges may be worked on at a time, and why not as many as possible."""

    parallel: int
    reason: str | None = None


def next_allowance(now: Allowance, seen: Seen, limits: Limits) -> Allowance:
    """Return the next allowance: it stops at once, comes back below half of a limit, and grows one by one."""
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
    """Rows a second over the last samples, each (seconds, rows so far)."""

    samples: tuple[tuple[float, int], ...] = ()

    def with_sample(self, now_s: float, rows: int, window_s: float = 60.0) -> Rate:
        """Return the rate with another sample, without those that are too old."""
        kept = [sample for sample in self.samples if sample[0] >= now_s - window_s]
        return Rate((*kept, (now_s, rows)))

    @property
    def per_s(self) -> float:
        """Rows a second, 0 while it is not known."""
        if len(self.samples) < 2 or self.samples[-1][0] <= self.samples[0][0]:
            return 0.0
        (first_s, first), (last_s, last) = self.samples[0], self.samples[-1]
        return (last - first) / (last_s - first_s)

    def eta_s(self, left: int) -> float | None:
        """Return in how many seconds that many rows are done, None while nobody knows."""
        return left / self.per_s if self.per_s > 0 else None
