"""Trials with real faults on the real stack, each checked for what is lost, stale, resurrected or torn.

All of them share one ground: every fault meets the state that the earlier ones left. `make faults N=…` runs more
trials, of all kinds. A dropped replication slot and a purged binary log are not among the trials. Capture must stop
then, and `test_fail_closed` checks that it does.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stack.layout import StackAddresses
from stack.stack import ALL_PARTS, LocalStack
from tests.faults.ground import Ground, ground_of
from tests.faults.kinds import FAULTS
from tests.faults.trials import Trial, figures_of, one_trial

pytestmark = [pytest.mark.stack, pytest.mark.timeout(420)]
# One fault of each sort, most sorts on every link. Restarting a worker, or waiting for it, takes most of the time.
KINDS = (
    "mariadb reset",
    "kafka reset",
    "worker killed at vector.before_write",
    "qdrant killed",
    "postgres cut",
    "column added",
    "postgres half-open",
    "worker killed at resolver.before_ledger",
    "embedder: nan",
    "mariadb killed",
    "kafka slow",
    "kafka answers dropped",
    "worker killed at legacy.after_write",
    "postgres killed",
    "postgres answers dropped",
    "mariadb answers dropped",
    "connect killed",
    "kafka half-open",
    "embedder: stall",
    "kafka killed",
    "qdrant killed with the worker",
    "worker frozen, another takes over",
)


@pytest.fixture(scope="module")
async def ground(
    stack: StackAddresses, stack_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Ground]:
    async with ground_of(LocalStack(stack_home, ALL_PARTS), stack, tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.fixture(scope="module")
def done() -> list[Trial]:
    return []


@pytest.mark.parametrize(("number", "kind"), list(enumerate(KINDS, 1)))
async def test_nothing_is_lost_stale_or_resurrected(number: int, kind: str, ground: Ground, done: list[Trial]) -> None:
    done.append(await one_trial(ground, number, 1000 + number, FAULTS[kind]))
    sys.stderr.write(f"{done[-1]}\n")
    assert done[-1].findings.clean, str(done[-1])


async def test_the_trials_met_real_load_and_reported_every_event(ground: Ground, done: list[Trial]) -> None:
    figures = figures_of(ground, done, sum(trial.whole_s for trial in done))
    sys.stderr.write(f"{figures.text()}\n")
    assert figures.clean
    assert figures.applied + figures.superseded + figures.dead_lettered == figures.submissions
    assert min(figures.applied, figures.superseded, figures.dead_lettered, figures.direct_writes) > 0
    assert figures.version_samples > len(done)
