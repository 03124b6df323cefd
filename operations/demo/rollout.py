"""The demonstration's rollout: from the proof to primary under live writes and questions, with one seeded regression.

Every step is commanded as an operator would, and every gate must pass. In primary, Qdrant is made to hang: a guard
takes the collection back by itself. The timeline is read from the topic of decisions.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from connectors.errors import TaskFailed
from operations.clients.questions import Asker
from operations.clients.rollout import command, decisions, moved_from, new_id, state_of
from schemas.queries import QueryAsked
from schemas.rollout import Phase, RolloutCommanded, RolloutDecided
from schemas.settings import GateLimits, Guards, Settings, Shadow

# Limits with which a gate is passed by some dozens of questions: a demonstration has no days. The defaults need more.
GATES = GateLimits(min_samples=40, error_rate=0.2, unequal_rate=0.2, p95_ms=1400.0, slow_share=0.3)
SHADOW = Shadow(rate=1.0, per_second=20.0)
GUARDS = Guards(cooldown_s=1.0)
_STEPS: tuple[Phase, ...] = ("shadow", "canary_5", "canary_50", "primary")
_SESSIONS = 500
_PAUSE_S = 0.05
_GATE_BOUND_S = 90.0
_COMMAND_S = 60.0
_RETRY_S = 2.0


@dataclass(slots=True)
class Rollout:
    """What happened: the decisions that moved the collection, and how many questions were asked and not answered."""

    timeline: list[RolloutDecided] = field(default_factory=list)
    asked: int = 0
    failed: int = 0
    guard_s: float = 0.0


async def roll_out(
    settings: Settings,
    name: str,
    asker: Asker,
    questions: Sequence[str],
    qdrant: int,
    write: Callable[[int], Awaitable[None]],
    progress: Callable[[str], None],
) -> Rollout:
    """Move a collection to primary and let a guard bring it back once, while `write` changes a document at a time.

    `qdrant` is the process that is made to hang. Raises TaskFailed if a gate does not pass in time.
    """
    found = Rollout()
    async with _load(name, asker, questions, write, found):
        for phase in _STEPS:
            await _promoted(settings, name, phase, progress)
        progress("Qdrant is made to hang: a guard has to notice")
        before = await state_of(settings.kafka, name)
        begun = time.time()
        os.kill(qdrant, signal.SIGSTOP)
        try:
            back = await moved_from(settings.kafka, before, _GATE_BOUND_S)
        finally:
            os.kill(qdrant, signal.SIGCONT)
        found.guard_s = round(back.changed_at_ms / 1000 - begun, 1)
        progress(f"after {found.guard_s} s the collection is in phase {back.phase}, by {back.by}")
        await _promoted(settings, name, "primary", progress)
    decided = await decisions(settings.kafka, name)
    found.timeline = [each for each in decided if each.outcome == "applied"]
    return found


async def _promoted(settings: Settings, name: str, to: Phase, progress: Callable[[str], None]) -> None:
    """Promote as soon as every gate passes."""
    deadline = time.monotonic() + _GATE_BOUND_S
    while True:
        wanted = RolloutCommanded(
            id=new_id(),
            collection=name,
            action="promote",
            to=to,
            expected_revision=(await state_of(settings.kafka, name)).revision,
            by="demo",
            reason="every gate passes",
        )
        decided = await command(settings.kafka, wanted, _COMMAND_S)
        if decided.after == to:
            progress(f"the collection is in phase {to}")
            return
        if time.monotonic() > deadline:
            raise TaskFailed(f"The collection does not get to {to}: {decided.message}.")
        await asyncio.sleep(_RETRY_S)


@asynccontextmanager
async def _load(
    name: str, asker: Asker, questions: Sequence[str], write: Callable[[int], Awaitable[None]], found: Rollout
) -> AsyncIterator[None]:
    """Ask and write without pause, from many sessions, until the block ends."""

    async def ask() -> None:
        while True:
            found.asked += 1
            text, session = questions[found.asked % len(questions)], str(found.asked % _SESSIONS)
            query = QueryAsked(id=uuid.uuid4().hex, collection=name, text=text, limit=5, session=session)
            answered = await asker.ask(query, 30.0)
            found.failed += answered.served_by is None
            await asyncio.sleep(_PAUSE_S)

    async def change() -> None:
        number = 0
        while True:
            await write(number)
            number += 1
            await asyncio.sleep(0.5)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in (ask(), ask(), change())]
        yield
        for task in tasks:
            task.cancel()
