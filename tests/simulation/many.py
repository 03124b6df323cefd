"""Runs of many seeds in two processes, and the explanation of a failing seed."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterator

from connectors.gc_tuning import collect_rarely
from tests.simulation.run import history_of, run
from tests.simulation.shrink import shrink

PROCESSES = 2  # spawned, not forked: a process that runs tests has threads of drivers and engines


def outcome_of(seed: int) -> tuple[int, str | None, Counter[str], int]:
    """Run a seed; return it with its violation, the ends of its events, and the number of completed actions."""
    outcome = run(*history_of(seed))
    return seed, outcome.violation, outcome.ends, outcome.done


def outcomes(first: int, last: int) -> Iterator[tuple[int, str | None, Counter[str], int]]:
    """Run the seeds of a range in two processes; yield their outcomes in the order of the seeds."""
    with multiprocessing.get_context("spawn").Pool(PROCESSES, collect_rarely) as pool:
        yield from pool.imap(outcome_of, range(first, last), chunksize=10)


def explain(seed: int) -> str | None:
    """Explain a failing seed: violation, shrunk history, and what happened. None if every invariant holds."""
    first_rows, actions = history_of(seed)
    outcome = run(first_rows, actions)
    if outcome.violation is None:
        return None
    rows, kept = shrink(first_rows, actions, outcome)
    again = run(rows, kept)
    reported = [f"seed {seed} (trace {outcome.digest}): {outcome.violation}"]
    reported += [f"shrunk from {len(actions)} actions to {len(kept)}: {again.violation}"]
    reported += [f"  first rows: {dict(rows.changes)}", *(f"  {action}" for action in kept)]
    reported += ["what happened:", *(f"  {line}" for line in again.trace)]
    return "\n".join([*reported, f"again: make simulate SEED={seed}"])
