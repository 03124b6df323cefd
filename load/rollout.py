"""Benchmarks of a rollout under load: the cost of shadow reads, a rollback by hand, and one by a guard."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from load.arrivals import Schedule, open_loop
from load.figures import Figure, Latencies
from load.place import VECTORS, Place, progress
from operations.clients.questions import Asker
from operations.clients.rollout import command, moved_from, new_id, state_of
from schemas.queries import QueryAnswered, QueryAsked
from schemas.rollout import Action, Phase, RolloutCommanded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_RATE_S = 50.0
# Full text on two cores is near its limit at 50/s, where every percent of load costs many of latency.
_SHADOW_RATE_S = 20.0
_SLICES = 3
_WARM_UP_S = 5.0
_ANSWER_BOUND_S = 20.0
_LEAD_S = 5.0
_TRIP_BOUND_S = 60.0


@dataclass(slots=True)
class Answered:
    """The answers of one open loop, each with the time at which it came, and their latencies."""

    answers: list[tuple[float, QueryAnswered]] = field(default_factory=list)
    latencies: Latencies = field(default_factory=Latencies)

    @property
    def failed(self) -> int:
        """How many questions nobody answered."""
        return sum(answered.served_by is None for _, answered in self.answers)

    def last_of_qdrant(self) -> float:
        """Return the time of the last answer that Qdrant gave because the phase said so."""
        times = [at for at, one in self.answers if one.served_by == "qdrant" and not one.degraded]
        return max(times, default=0.0)


async def rollout(at: Place, asked: Sequence[str], seconds: float) -> list[Figure]:
    """Measure shadow reads against none at 20 questions/s, in alternating slices, then both ways back at 50/s."""
    async with Asker(at.settings.kafka, at.bus) as asker:
        figures = [await _shadow_cost(at, asker, asked, seconds)]
        figures += await _rolled_back(at, asker, asked)
        figures.append(await _tripped(at, asker, asked))
    return figures


async def _shadow_cost(at: Place, asker: Asker, asked: Sequence[str], seconds: float) -> Figure:
    await _move(at, "promote", "shadow")
    await _ask(asker, asked, _WARM_UP_S)
    turns: list[tuple[float, float]] = []
    for _ in range(_SLICES):
        await _move(at, "rollback", "dual_write")
        without = (await _ask(asker, asked, seconds / _SLICES, rate_s=_SHADOW_RATE_S)).latencies.ms()["p95"]
        await _move(at, "promote", "shadow")
        shadowed = (await _ask(asker, asked, seconds / _SLICES, rate_s=_SHADOW_RATE_S)).latencies.ms()["p95"]
        turns.append((shadowed, without))
        progress(f"p95 {shadowed:.1f} ms with shadow reads, {without:.1f} ms without")
    return Figure(
        "shadow_p95_cost_ratio",
        round(median(own for own, _ in turns), 2),
        "ms",
        baseline=round(median(without for _, without in turns), 2),
        ratio=round(median(own / without for own, without in turns), 3),
        details={"rate_s": _SHADOW_RATE_S},
    )


async def _rolled_back(at: Place, asker: Asker, asked: Sequence[str]) -> list[Figure]:
    await _move(at, "promote", "primary")
    await _ask(asker, asked, _WARM_UP_S)
    async with _asking(asker, asked, 3 * _LEAD_S) as answered:
        await asyncio.sleep(_LEAD_S)
        begun = time.perf_counter()
        await _move(at, "rollback", "shadow")
    took = max(0.0, answered.last_of_qdrant() - begun)
    details: dict[str, object] = {"rate_s": _RATE_S, "questions": len(answered.answers)}
    return [
        Figure("rollback_s", round(took, 2), "s", details=details),
        Figure("rollback_failed_questions", answered.failed, "questions", details=details),
    ]


async def _tripped(at: Place, asker: Asker, asked: Sequence[str]) -> Figure:
    """Let Qdrant hang, and measure until the guard has moved the collection back."""
    await _move(at, "promote", "primary")
    qdrant = at.stack.part("qdrant").pid
    if qdrant is None:
        raise RuntimeError("Qdrant does not run")
    before = await state_of(at.settings.kafka, VECTORS)
    async with _asking(asker, asked, 5 * _LEAD_S) as answered:
        await asyncio.sleep(_LEAD_S)
        begun = time.time()
        os.kill(qdrant, signal.SIGSTOP)
        try:
            after = await moved_from(at.settings.kafka, before, _TRIP_BOUND_S)
        finally:
            os.kill(qdrant, signal.SIGCONT)
    return Figure(
        "guard_trip_s",
        round(after.changed_at_ms / 1000 - begun, 2),
        "s",
        details={"by": after.by, "questions": len(answered.answers), "failed_questions": answered.failed},
    )


async def _move(at: Place, action: Action, to: Phase) -> None:
    wanted = RolloutCommanded(
        id=new_id(),
        collection=VECTORS,
        action=action,
        to=to,
        expected_revision=(await state_of(at.settings.kafka, VECTORS)).revision,
        by="benchmark",
        reason="benchmark",
        force=action == "promote",
    )
    decided = await command(at.settings.kafka, wanted, _TRIP_BOUND_S)
    if decided.after != to:
        raise RuntimeError(f"{action} to {to}: {decided.message}")


@asynccontextmanager
async def _asking(asker: Asker, asked: Sequence[str], seconds: float) -> AsyncIterator[Answered]:
    """Ask for some seconds, while the caller does something else; leave when all are answered."""
    answered = Answered()
    task = asyncio.create_task(_ask(asker, asked, seconds, answered))
    try:
        yield answered
        await task
    finally:
        task.cancel()


async def _ask(
    asker: Asker, asked: Sequence[str], seconds: float, into: Answered | None = None, *, rate_s: float = _RATE_S
) -> Answered:
    answered = Answered() if into is None else into

    async def send(number: int, due: float) -> None:
        query = QueryAsked(id=uuid.uuid4().hex, collection=VECTORS, text=asked[number % len(asked)], limit=10)
        found = await asker.ask(query, _ANSWER_BOUND_S)
        answered.latencies.record(time.perf_counter() - due)
        answered.answers.append((time.perf_counter(), found))

    await open_loop(Schedule(rate_s, seconds), send)
    return answered
