"""A role is stuck where records wait in its own partitions and nothing is committed, unless it waits or works."""

from __future__ import annotations

import pytest

from agents.runner import RoleHealth
from agents.watchdog import CommitWatch
from connectors.kafka.tail import Lag

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
