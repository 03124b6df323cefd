"""How fast bulk work may run: it stops at once, resumes below half of a limit, and grows one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.pacing import Allowance, Limits, Rate, Seen, next_allowance

LIMITS = Limits(parallel=4, lag_s=30.0, lag_messages=1000, running=10)
FULL = Allowance(4)
CALM = Seen({"vector": (0, 0.0)}, 1)


def test_it_begins_slowly_and_reaches_all_ranges() -> None:
    allowance, seen = Allowance(1, "beginning slowly"), []
    for _ in range(5):
        allowance = next_allowance(allowance, CALM, LIMITS)
        seen.append((allowance.parallel, allowance.reason))
    assert seen == [(2, "beginning slowly"), (3, "beginning slowly"), (4, None), (4, None), (4, None)]


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (Seen({"vector": (1001, 1.0)}, 1), "the vector is 1001 records behind"),
        (Seen({"intake": (5, 31.0)}, 1), "the intake is 31 s behind"),
        (Seen(None, 1), "the brokers do not answer"),
        (Seen({}, None), "the database does not answer"),
        (Seen({}, 1, paused=True), "paused by an operator"),
    ],
)
def test_it_stops_at_once_and_says_why(seen: Seen, reason: str) -> None:
    assert next_allowance(FULL, seen, LIMITS) == Allowance(0, reason)


def test_what_waited_goes_on_only_below_half_of_a_limit() -> None:
    waiting = Allowance(0, "the vector is 1001 records behind")
    assert next_allowance(waiting, Seen({"vector": (501, 1.0)}, 1), LIMITS).parallel == 0
    assert next_allowance(waiting, Seen({"vector": (5, 16.0)}, 1), LIMITS).parallel == 0
    assert next_allowance(waiting, Seen({"vector": (499, 14.0)}, 1), LIMITS).parallel == 1


def test_an_age_that_is_not_known_does_not_stop_it_and_an_old_record_that_was_read_neither() -> None:
    assert next_allowance(FULL, Seen({"vector": (5, None), "intake": (0, 99.0)}, 1), LIMITS) == FULL


def test_a_busy_database_halves_the_ranges_and_keeps_one() -> None:
    busy = Seen({}, 11)
    half = next_allowance(FULL, busy, LIMITS)
    assert half == Allowance(2, "the database executes 11 statements")
    assert next_allowance(Allowance(1, "x"), busy, LIMITS).parallel == 1
    assert next_allowance(half, CALM, LIMITS).parallel == 3


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.floats(0, 90), st.integers(0, 30), st.booleans()), max_size=30),
    st.integers(1, 8),
)
def test_it_is_never_more_than_allowed_and_has_a_reason_for_less(
    looks: list[tuple[int, float, int, bool]], parallel: int
) -> None:
    limits, allowance = Limits(parallel, 30.0, 1000, 10), Allowance(1)
    for messages, seconds, running, paused in looks:
        allowance = next_allowance(allowance, Seen({"vector": (messages, seconds)}, running, paused), limits)
        assert 0 <= allowance.parallel <= parallel
        assert (allowance.reason is None) == (allowance.parallel == parallel and running <= limits.running)


def test_a_rate_is_that_of_the_last_minute_and_gives_the_time_that_is_left() -> None:
    rate = Rate()
    assert (rate.per_s, rate.eta_s(10)) == (0.0, None)
    for second in range(200):
        rate = rate.with_sample(second, 10 * second if second < 100 else 1000 + 50 * (second - 100))
    assert rate.per_s == pytest.approx(50)
    assert rate.eta_s(500) == pytest.approx(10)
    assert len(rate.samples) <= 62
