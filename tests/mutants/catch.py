"""The search for a simulated history in which an invariant catches a mutant."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple
from unittest.mock import patch

from tests.mutants.mutants import MUTANTS, Mutant
from tests.simulation.run import history_of, run

PROCESSES = 2  # spawned, not forked: a process that runs tests has threads of drivers and engines
MOST_SEEDS = 1000


class Caught(NamedTuple):
    """The result for a mutant: the seed that caught it and the violation, or None and "" if no seed did."""

    name: str
    seed: int | None
    violation: str


def catch(mutant: Mutant, most_seeds: int = MOST_SEEDS) -> Caught:
    """Try the seed that caught the mutant before, then all seeds from 0 on, until one catches it."""
    with ExitStack() as switched:
        for name, replacement in mutant.changes.items():
            switched.enter_context(patch(name, replacement))
        for seed in (mutant.seed, *range(most_seeds)):
            violation = run(*history_of(seed)).violation
            if violation is not None:
                return Caught(mutant.name, seed, violation)
    return Caught(mutant.name, None, "")


def _catch_number(number: int) -> Caught:
    return catch(MUTANTS[number])  # send the number: the replacements are not values to send to a process


def catch_all() -> Iterator[Caught]:
    """Try every mutant in two processes; yield each result when it is ready."""
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        yield from pool.imap_unordered(_catch_number, range(len(MUTANTS)))
