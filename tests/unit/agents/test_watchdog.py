"""A role is stuck if records wait in its own partitions and nothing is committed, unless it waits or works."""

from __future__ import annotations

import pytest

from agents.runner import RoleHealth
from agents.watchdog import Awake, CommitWatch
from connectors.kafka.offsets import Lag

STALL_S = 60.0
HERE = [("t", 0)]


def lag(committed: int | None, behind: int, partition: int = 0) -> list[Lag]:
    return [Lag("t", partition, committed, 100, behind)]


def watch(health: RoleHealth | None = None) -> CommitWatch:
    made = CommitWatch(health or RoleHealth("vector", finished_at_s=0.0), 0.0)
    assert made.stuck(lag(5, 10), HERE, 0.0, STALL_S) is None
    return made


def test_records_and_no_commit_for_too_long_is_stuck() -> None:
    watched = watch()
    assert watched.stuck(lag(5, 10), HERE, 59.0, STALL_S) is None
    why = watched.stuck(lag(5, 10), HERE, 61.0, STALL_S)
    assert why == "vector has 10 records to read and committed nothing for 61 s"


def test_batches_that_are_handled_and_never_committed_are_stuck_too() -> None:
    watched = watch(RoleHealth("vector", finished_at_s=60.0, busy_since_s=60.5))
    assert watched.stuck(lag(5, 10), HERE, 61.0, STALL_S) is not None


@pytest.mark.parametrize(
    ("lags", "health"),
    [
        (lag(6, 10), RoleHealth("vector", finished_at_s=0.0)),
        (lag(5, 0), RoleHealth("vector", finished_at_s=0.0)),
        (lag(5, 10), RoleHealth("vector", finished_at_s=0.0, waiting_for="StoreUnavailable: down")),
        (lag(5, 10), RoleHealth("vector", finished_at_s=-1.0, busy_since_s=30.0)),
        (lag(5, 10, partition=1), RoleHealth("vector", finished_at_s=0.0)),
    ],
    ids=[
        "committed something",
        "nothing to read",
        "waits for a store",
        "one batch with progress",
        "another's partition",
    ],
)
def test_what_moves_waits_works_or_belongs_to_another_is_not_stuck(lags: list[Lag], health: RoleHealth) -> None:
    watched = watch(health)
    assert watched.stuck(lags, HERE, 61.0, STALL_S) is None


BOTH = [("t", 0), ("t", 1)]


def test_a_partition_that_is_not_served_while_another_goes_on_is_stuck_after_twice_the_limit() -> None:
    watched = CommitWatch(RoleHealth("capture", finished_at_s=0.0), 0.0)
    reported = []
    for second in range(0, 130, 5):
        lags = [*lag(second, 10), *lag(7, 3, partition=1)]
        reported.append(watched.stuck(lags, BOTH, float(second), STALL_S))
    assert reported[:25] == [None] * 25
    assert reported[25] == "capture has 3 records to read of t/1, unserved for 125 s"


def test_a_partition_counts_from_when_it_had_something_to_read_and_again_after_a_wait() -> None:
    health = RoleHealth("capture", finished_at_s=0.0)
    watched = CommitWatch(health, 0.0)
    for second in range(0, 500, 5):
        health.waiting_for = "StoreUnavailable: down" if second == 300 else None
        unread = 0 if second < 200 else 3
        lags = [*lag(second, 10), *lag(7, unread, partition=1)]
        stuck = watched.stuck(lags, BOTH, float(second), STALL_S)
        assert (stuck is None) == (second <= 420), (second, stuck)


def test_a_process_that_stood_still_itself_counts_from_when_it_goes_on() -> None:
    awake = Awake(0.0, 0.0)
    assert awake.looks(15.5, 15.0)
    assert awake.since_s == 0.0
    assert not awake.looks(46.0, 15.0)
    assert awake.since_s == 46.0
    assert awake.looks(62.0, 15.0)
    assert awake.since_s == 46.0
