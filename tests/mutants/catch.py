"""Switches a mutant on and looks for a history of the simulation in which an invariant notices it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple
from unittest.mock import patch

from tests.mutants.mutants import MUTANTS, Mutant
from tests.simulation.run import history_of, run

PROCESSES = 2  # of their own, not forks: a process that runs tests has threads of drivers and engines
MOST_SEEDS = 1000


class Caught(NamedTuple):
    """What became of a mutant: the seed that caught it and the violation, None and nothing where none did."""

    name: str
    seed: int | None
    violation: str


def catch(mutant: Mutant, most_seeds: int = MOST_SEEDS) -> Caught:
    """Try the seed that caught the mutant before, and then all from 0 on, until one does."""
    with ExitStack() as switched:
        for name, replacement in mutant.changes.items():
            switched.enter_context(patch(name, replacement))
        for seed in (mutant.seed, *range(most_seeds)):
            violation = run(*history_of(seed)).violation
            if violation is not None:
                return Caught(mutant.name, seed, violation)
    return Caught(mutant.name, None, "")


def _catch_number(number: int) -> Caught:
    return catch(MUTANTS[number])  # what stands in for what is no value to be sent


def catch_all() -> Iterator[Caught]:
    """Try every mutant in two processes; yield each as it is done."""
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        yield from pool.imap_unordered(_catch_number, range(len(MUTANTS)))
