"""One backfill from plan to index: several ranges at a time, at the pace that the live system allows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from connectors.errors import CrossfadeError, Refused
from connectors.ports import TaskStore
from domain.pacing import Limits, Seen
from migration.backfill.progress import Plan, begun
from migration.backfill.ranges import BackfillPorts, RangeRun
from migration.backfill.recall import recall_at_10
from migration.backfill.throttle import Pace
from migration.coverage import LIES, gaps
from schemas.tasks import BACKFILL, BackfillState

Lags = Callable[[], Awaitable[Mapping[str, tuple[int, float | None]]]]
Progress = Callable[[BackfillState], None]
RECALL_QUESTIONS = 50
SHOWN_S = 1.0


@dataclass(frozen=True, slots=True)
class BackfillOptions:
    """What is requested of a backfill: see the options of `crossfade backfill`."""

    limits: Limits = field(default_factory=Limits)
    range_rows: int = 10_000
    restart: bool = False
    index: bool = True


async def backfill(
    ports: BackfillPorts,
    tasks: TaskStore,
    options: BackfillOptions,
    lags: Lags,
    clock: Callable[[], int],
    progress: Progress,
) -> BackfillState:
    """Bring every row of the table into Qdrant, as a point of version 0 where none exists; return what was done.

    Continues where an earlier attempt ended. Raises Refused if another process runs it or if rows of the table were
    left out, and the error of a store that stays away.
    """
    async with tasks.hold(BACKFILL):
        plan = await begun(
            tasks,
            ports.stores.bulk,
            clock,
            model=ports.embedder.model_key,
            range_rows=options.range_rows,
            restart=options.restart,
        )
        try:
            await _fill(plan, ports, options, lags, progress)
            await plan.say(filled_at_ms=clock())
            if options.index:
                await _index(plan, ports, progress)
            await _check_read(plan, ports)
            await plan.say(state="done", finished_at_ms=clock(), eta_s=0.0, throttle=None)
        except CrossfadeError as error:
            await plan.say(state="failed", error=str(error))
            raise
    return plan.state


async def _fill(plan: Plan, ports: BackfillPorts, options: BackfillOptions, lags: Lags, progress: Progress) -> None:
    previous_threshold = await ports.stores.vectors.suspend_indexing(ports.stores.name)
    if previous_threshold is not None:  # None: an earlier attempt has switched indexing off already
        await plan.say(indexed_from=previous_threshold)
    async with Pace(partial(_look, plan, ports, options.limits, lags), options.limits) as pace:
        reporting = asyncio.create_task(_report(plan, pace, progress), name="backfill progress")
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(options.limits.parallel):
                    group.create_task(_ranges(plan, ports, partial(pace.turn, number)))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)
    progress(plan.state)


async def _check_read(plan: Plan, ports: BackfillPorts) -> None:
    """Compare what was read with the table's own number of rows. Raises Refused if rows were left out."""
    left = gaps(await ports.stores.bulk.coverage(plan.bounds))
    if plan.unread:
        left.append((f"rows of the table that were read by no page: {plan.unread}", LIES))
    if left:
        raise Refused("; ".join(f"{what} ({reason})" for what, reason in left))


async def _ranges(plan: Plan, ports: BackfillPorts, turn: Callable[[], Awaitable[None]]) -> None:
    await turn()
    while (taken := await plan.next()) is not None:
        number, state = taken
        await RangeRun(ports, state, turn, partial(plan.keep, number)).run()


async def _report(plan: Plan, pace: Pace, progress: Progress) -> None:
    while True:
        state = "paused" if pace.stands and await plan.paused() else "running"
        if (state, pace.reason) != (plan.state.state, plan.state.throttle):
            await plan.say(state=state, throttle=pace.reason)
        progress(plan.state)
        await asyncio.sleep(SHOWN_S)


async def _look(plan: Plan, ports: BackfillPorts, limits: Limits, lags: Lags) -> Seen:
    try:
        paused = await plan.paused()
        running = max(0, await ports.stores.bulk.running_statements() - limits.parallel)
    except CrossfadeError:
        return Seen({}, None)
    try:
        return Seen(await lags(), running, paused)
    except CrossfadeError:
        return Seen(None, running, paused)


async def _index(plan: Plan, ports: BackfillPorts, progress: Progress) -> None:
    await plan.say(state="indexing", throttle=None)
    progress(plan.state)
    await ports.stores.vectors.resume_indexing(ports.stores.name, plan.state.indexed_from)
    await plan.say(recall=await recall_at_10(ports.stores.vectors, ports.stores.name, RECALL_QUESTIONS))
    progress(plan.state)
