"""Trials (load, one fault, recovery, check) and the figures of many. The faults and the checks are in other modules."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

from tests.faults.checker import Findings, check_outcomes
from tests.faults.ground import Ground
from tests.faults.kinds import FAULTS, Fault
from tests.faults.traffic import Traffic

RECOVERY_BOUND_S = 180.0
_SAMPLE_S = 0.25


@dataclass
class Trial:
    """The result of one trial. `recover_s` ends when writes after the fault are in Qdrant, from both databases."""

    number: int
    seed: int
    kind: str
    events: int
    recover_s: float
    whole_s: float
    findings: Findings
    repaired: bool = False
    waited_for: str = ""

    def __str__(self) -> str:
        found = "" if self.findings.clean else f" WRONG: {self.findings}"
        more = " (repaired after dead letters)" if self.repaired else ""
        times = f"recovered {self.recover_s:5.1f} s, whole {self.whole_s:5.1f} s"
        waited = f"; at last waited for {self.waited_for:.100}" if self.waited_for and self.findings.clean else ""
        return (
            f"{self.number:3} seed {self.seed:<6} {self.kind:42} {self.events:4} events, {times}{more}{found}{waited}"
        )


@dataclass
class Figures:
    """The figures of a run; `lost`, `stale`, `ghosts`, `torn` and `went_down` must be 0."""

    trials: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    events_sent: int = 0
    submissions: int = 0
    direct_writes: int = 0
    applied: int = 0
    superseded: int = 0
    dead_lettered: int = 0
    lost: int = 0
    stale: int = 0
    ghosts: int = 0
    torn: int = 0
    went_down: int = 0
    version_samples: int = 0
    recover_s_p50: float = 0.0
    recover_s_max: float = 0.0
    recover_slowest: str = ""
    worker_restarts: int = 0
    connector_restarts: int = 0
    recaptured: int = 0
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        return not (self.lost or self.stale or self.ghosts or self.torn or self.went_down)

    def json(self) -> str:
        return json.dumps({"faults": asdict(self)})

    def text(self) -> str:
        lines = [f"{name.replace('_', ' '):20} {value}" for name, value in asdict(self).items() if name != "faults"]
        return "\n".join([*lines, *(f"  {count:3} {kind}" for kind, count in sorted(self.faults.items()))])


async def one_trial(ground: Ground, number: int, seed: int, fault: Fault) -> Trial:
    """Load the ground, cause the fault, wait until the ground has recovered and is at rest, and check it."""
    begun = time.monotonic()
    rng = random.Random(seed)
    traffic = Traffic(rng, ground.stores, ground.submitter, f"{number}.{seed}")
    stop, reported_before = asyncio.Event(), ground.seen.dead_lettered
    loading = asyncio.create_task(traffic.run(stop))
    sampling = asyncio.create_task(_sample(ground))
    try:
        await asyncio.sleep(rng.uniform(0.3, 1.0))
        since = await fault.act(ground, rng)
        recovered_at = await _recovered(ground, traffic)
        stop.set()
        await loading
        findings = await ground.until_clean(reported_before, repairs=fault.repairs)
    finally:
        for task in (loading, sampling):
            task.cancel()
        await asyncio.gather(loading, sampling, return_exceptions=True)
    whole_s = time.monotonic() - begun
    recover_s = recovered_at - since
    return Trial(
        number, seed, fault.kind, traffic.events, recover_s, whole_s, findings, ground.repaired, ground.waited_for
    )


async def _sample(ground: Ground) -> None:
    while True:
        await ground.sample()
        await asyncio.sleep(_SAMPLE_S)


async def _recovered(ground: Ground, traffic: Traffic) -> float:
    """Write to every store in both ways, and return the moment at which Qdrant has all of it."""
    wanted: dict[tuple[str, str], str] = {}
    for store in ground.stores:
        stamp = traffic.stamp()
        await store.application.put("probe-direct", stamp, "ant birch", 1)
        sent = traffic.submit(store, "probe-sent")
        wanted |= {(store.name, "probe-direct"): stamp, (store.name, "probe-sent"): str(sent.stamp)}
    deadline = time.monotonic() + RECOVERY_BOUND_S
    while wanted and time.monotonic() < deadline:
        await ground.revive()
        for name, document_id in list(wanted):
            if await ground.holds(name, document_id, wanted[name, document_id]):
                del wanted[name, document_id]
        await asyncio.sleep(0.1)
    assert not wanted, f"after {RECOVERY_BOUND_S:.0f} s Qdrant does not have {wanted}; {ground.worker.tail()}"
    return time.monotonic()


def schedule(count: int, seed: int, first: tuple[str, ...] = ()) -> list[tuple[int, Fault]]:
    """Return (seed, fault) of each trial: the kinds in `first`, then all others, then any. The seed sets the order."""
    rng = random.Random(seed)
    others = [kind for kind in FAULTS if kind not in first]
    rng.shuffle(others)
    kinds = [*rng.sample(first, len(first)), *others][:count]
    kinds += rng.choices(list(FAULTS), k=count - len(kinds))
    return [(rng.randrange(10**6), FAULTS[kind]) for kind in kinds]


def figures_of(ground: Ground, trials: list[Trial], seconds: float) -> Figures:
    """Return the figures of a run."""
    figures = Figures(trials=len(trials), faults=dict(Counter(trial.kind for trial in trials)))
    figures.events_sent = sum(trial.events for trial in trials)
    for store in ground.stores:
        _, counts = check_outcomes(store.books, ground.seen)
        figures.submissions += len(store.books.sent)
        figures.direct_writes += store.books.direct_writes
        figures.applied += counts["applied"]
        figures.superseded += counts["superseded"]
        figures.dead_lettered += counts["dead_lettered"]
    for name in ("lost", "stale", "ghosts", "torn", "went_down"):
        setattr(figures, name, sum(len(getattr(trial.findings, name)) for trial in trials))
    figures.version_samples = ground.versions.samples
    if trials:
        slowest = max(trials, key=lambda trial: trial.recover_s)
        figures.recover_s_p50 = round(statistics.median(trial.recover_s for trial in trials), 1)
        figures.recover_s_max, figures.recover_slowest = round(slowest.recover_s, 1), slowest.kind
    figures.worker_restarts, figures.connector_restarts = ground.worker.restarts, ground.connector_restarts
    figures.recaptured = ground.recaptured
    figures.seconds = round(seconds, 1)
    return figures
