"""`make simulate`: one seed again with its history, or many seeds in two processes up to the first that fails."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.many import explain, outcomes
from tests.simulation.run import Outcome, history_of, run

PROGRESS_S = 5.0


def one(seed: int) -> int:
    """Replay a seed; print its history and, if it fails, the shrunk one."""
    first_rows, actions = history_of(seed)
    outcome = run(first_rows, actions)
    print(f"first rows: {dict(first_rows.changes)}", *actions, sep="\n  ")
    print(f"trace {outcome.digest}, {len(outcome.trace)} steps, {_ends(outcome)}")
    print(explain(seed) or "every invariant holds")
    return 0 if outcome.violation is None else 1


def _ends(outcome: Outcome) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(outcome.ends.items())) or "no end"


def many(first: int, number: int) -> int:
    """Run a range of seeds; stop at the first that fails."""
    started = reported = time.monotonic()
    done, actions, ends = 0, 0, Counter[str]()
    for seed, violation, ended, steps in outcomes(first, first + number):
        if violation is not None:
            print(explain(seed) or f"seed {seed}: {violation}", flush=True)
            return 1
        done, actions, ends = done + 1, actions + steps, ends + ended
        if time.monotonic() - reported >= PROGRESS_S or done == number:
            reported = time.monotonic()
            rate = done / (reported - started)
            left_s = (number - done) / rate
            print(f"{done}/{number} seeds, {rate:.0f}/s, {left_s:.0f} s left", file=sys.stderr, flush=True)
    seconds = time.monotonic() - started
    print(f"{done} seeds from {first} in {seconds:.0f} s ({done / seconds:.0f}/s), {actions} actions, no violation")
    print(f"{ends.total()} events submitted: " + ", ".join(f"{count} {name}" for name, count in sorted(ends.items())))
    return 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay one seed")
    parser.add_argument("--seeds", type=int, default=2000, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    given = parser.parse_args()
    return one(given.seed) if given.seed is not None else many(given.first, given.seeds)


if __name__ == "__main__":
    sys.exit(main())
