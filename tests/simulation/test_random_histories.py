"""Tests that the invariants hold in random histories of the whole installation, and that a seed fixes its history.

`CROSSFADE_SEEDS=A:B` runs other seeds than the first 600; `make simulate` runs any number.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation import actions as act
from tests.simulation.loop import Fault
from tests.simulation.many import explain, outcomes
from tests.simulation.run import history_of, run
from tests.simulation.shrink import minimal

FIRST, _, LAST = os.environ.get("CROSSFADE_SEEDS", "0:600").partition(":")
SAMPLE = (3, 17, 101)


@pytest.mark.timeout(900)
def test_every_invariant_holds_in_every_history() -> None:
    ends: Counter[str] = Counter()
    for seed, violation, ended, _ in outcomes(int(FIRST), int(LAST)):
        if violation is not None:
            pytest.fail(explain(seed) or f"seed {seed}: {violation}")
        ends += ended
    # If no event came to one of these ends, the histories would prove nothing about it.
    assert min(ends[end] for end in ("applied", "superseded", "dead_lettered")) > 20


@pytest.mark.parametrize("seed", SAMPLE)
def test_a_seed_gives_the_same_trace_whatever_the_process(seed: int) -> None:
    script = f"from tests.simulation.run import *; print(run(*history_of({seed})).digest)"
    digests = {run(*history_of(seed)).digest}
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ran = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(ran.stdout.strip())
    assert len(digests) == 1
    assert digests != {run(*history_of(seed + 1)).digest}


def test_histories_have_every_kind_of_action_and_fault() -> None:
    actions = [action for seed in range(40) for action in history_of(seed)[1]]
    assert {type(action) for action in actions} == set(act.Action.__args__)
    assert {action.fault for action in actions if isinstance(action, act.Step)} == set(Fault)


@pytest.mark.parametrize("number", range(216, 222))
def test_a_damaged_version_of_a_tombstone_hides_no_later_change(number: int) -> None:
    everything = (0, 1) * 3
    steps = [act.Step(role, everything, 40) for role in ("intake", "resolver", "embedder", "vector")]
    history: list[act.Action] = [act.Submit("notes/1", None), *steps, act.Damage("notes/1", "point version", number)]
    assert run(act.Write(()), history).violation is None


def test_a_damaged_version_and_a_row_that_is_to_be_read_do_not_fill_the_log() -> None:
    assert run(*history_of(2985)).violation is None


def test_a_list_is_shrunk_to_the_items_that_are_needed_together() -> None:
    assert minimal(list(range(100)), lambda some: {3, 50, 51} <= set(some)) == [3, 50, 51]
    assert minimal(list(range(10)), lambda some: True) == []
