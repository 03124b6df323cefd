"""A circuit breaker as a value: the caller passes the time, and each method returns the next state.

Closed until `failures` calls in a row failed, then open for `cooldown_s`, then half open: one call may try.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class Breaker:
    """`opened_at_s` is None while closed; `probing` marks the one call that may try while half open."""

    failures: int = 5
    cooldown_s: float = 5.0
    failed: int = 0
    opened_at_s: float | None = None
    probing: bool = False

    def state(self, now_s: float) -> Literal["closed", "open", "half_open"]:
        """Return the state at the given time."""
        if self.opened_at_s is None:
            return "closed"
        return "half_open" if now_s - self.opened_at_s >= self.cooldown_s else "open"

    def allows(self, now_s: float) -> bool:
        """Return whether a call may be made now."""
        state = self.state(now_s)
        return state == "closed" or (state == "half_open" and not self.probing)

    def started(self, now_s: float) -> Breaker:
        """Return the state after a call began."""
        return replace(self, probing=True) if self.state(now_s) == "half_open" else self

    def released(self) -> Breaker:
        """Return the state after a call that says nothing about the backend: its question was at fault or cancelled."""
        return replace(self, probing=False)

    def succeeded(self) -> Breaker:
        """Return the state after a call succeeded: closed."""
        return replace(self, failed=0, opened_at_s=None, probing=False)

    def failed_at(self, now_s: float) -> Breaker:
        """Return the state after a call failed: open again at once if the call was the probe."""
        failed = self.failed + 1
        opens = failed >= self.failures or self.opened_at_s is not None
        return replace(self, failed=failed, opened_at_s=now_s if opens else None, probing=False)
