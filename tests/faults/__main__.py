"""`python -m tests.faults`: many trials, each reported as it ends, then the figures as text and as one JSON line."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from stack.stack import ALL_PARTS, LocalStack
from tests.faults.ground import ground_of
from tests.faults.kinds import FAULTS
from tests.faults.trials import Figures, Trial, figures_of, one_trial, schedule


def reported(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


async def run(home: Path, folder: Path, count: int, seed: int, only: str) -> Figures:
    """Start the stack and run the trials. Stop at the first one with findings."""
    stack = LocalStack(home, ALL_PARTS, install_mariadb=True)
    addresses = await stack.up(reported)
    begun = time.monotonic()
    wanted = [part.strip() for part in only.split(",") if part.strip()]
    chosen = tuple(kind for kind in FAULTS if any(part in kind for part in wanted))
    if only and not chosen:
        raise SystemExit(f"no kind of fault contains {only!r}: {', '.join(FAULTS)}")
    async with ground_of(stack, addresses, folder) as ground:
        trials: list[Trial] = []
        for number, (trial_seed, fault) in enumerate(schedule(count or len(chosen), seed, chosen), 1):
            trials.append(await one_trial(ground, number, trial_seed, fault))
            reported(str(trials[-1]))
            if not trials[-1].findings.clean:
                break
        return figures_of(ground, trials, time.monotonic() - begun)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.faults", description="Trials with real faults on a real local stack.")
    parser.add_argument("--trials", type=int, default=60, help="how many (0 with --only: each of those kinds once)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--only", default="", help="kinds of fault that contain one of these texts (separated by commas) come first"
    )
    arguments = parser.parse_args()
    given = os.environ.get("CROSSFADE_TEST_HOME")
    folder = Path(tempfile.mkdtemp(prefix="crossfade-faults-"))
    home = Path(given).absolute() if given else folder / "home"
    reported(f"logs of the workers: {folder}")
    try:
        figures = asyncio.run(run(home, folder, arguments.trials, arguments.seed, arguments.only))
    finally:
        if not given:
            asyncio.run(LocalStack(home).down())
    sys.stdout.write(f"{figures.text()}\n{figures.json()}\n")
    if figures.clean:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if figures.clean else 1


if __name__ == "__main__":
    sys.exit(main())
