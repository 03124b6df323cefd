"""The circuit breaker as a table of histories: its state, and whether it allows a call, after each of them."""

from __future__ import annotations

from typing import Literal

import pytest

from domain.breaker import Breaker

State = Literal["closed", "open", "half_open"]
NEW = Breaker(failures=3, cooldown_s=5.0)


def after(*history: str) -> Breaker:
    """Apply a history of `fail@T`, `start@T`, `ok` and `release`, with T in seconds."""
    breaker = NEW
    for step in history:
        name, _, at = step.partition("@")
        if name == "fail":
            breaker = breaker.failed_at(float(at))
        elif name == "start":
            breaker = breaker.started(float(at))
        elif name == "release":
            breaker = breaker.released()
        else:
            breaker = breaker.succeeded()
    return breaker


OPENED = ("fail@0", "fail@0", "fail@0")


@pytest.mark.parametrize(
    ("history", "now_s", "state", "allows"),
    [
        ((), 0, "closed", True),
        (("fail@0", "fail@0"), 0, "closed", True),
        (("fail@0", "fail@0", "ok", "fail@0", "fail@0"), 0, "closed", True),
        (("fail@0", "fail@0", "release", "fail@0"), 0, "open", False),
        (("start@0",), 0, "closed", True),
        (OPENED, 0, "open", False),
        (OPENED, 4.9, "open", False),
        (OPENED, 5, "half_open", True),
        ((*OPENED, "start@5"), 6, "half_open", False),
        ((*OPENED, "start@4"), 5, "half_open", True),
        ((*OPENED, "start@5", "ok"), 6, "closed", True),
        ((*OPENED, "start@5", "ok", "fail@6"), 6, "closed", True),
        ((*OPENED, "start@5", "fail@6"), 6, "open", False),
        ((*OPENED, "start@5", "fail@6"), 10.9, "open", False),
        ((*OPENED, "start@5", "fail@6"), 11, "half_open", True),
        ((*OPENED, "start@5", "release"), 6, "half_open", True),
    ],
    ids=[
        "new",
        "below the limit",
        "a success begins the count again",
        "a call that says nothing leaves the count",
        "a call while closed is no probe",
        "as many failures as the limit",
        "before the cooldown ends",
        "after the cooldown one may try",
        "one probe at a time",
        "a call begun while open is no probe",
        "a probe that succeeds closes",
        "after closing the count begins again",
        "a probe that fails opens at once",
        "and the cooldown begins again",
        "until it ends",
        "a probe that says nothing leaves the place to another",
    ],
)
def test_the_state_after_a_history(history: tuple[str, ...], now_s: float, state: State, allows: bool) -> None:
    breaker = after(*history)
    assert (breaker.state(now_s), breaker.allows(now_s)) == (state, allows)
