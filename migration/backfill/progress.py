"""Which ranges a backfill has, which are done, and what the collection's task store keeps of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from connectors.ports import BulkTable, TaskStore
from domain.pacing import Rate
from schemas.tasks import BACKFILL, CONTROL, HEADER, BackfillState, RangeState, backfill_kept, is_paused

log = logging.getLogger("crossfade.backfill")


class Plan:
    """The ranges of one backfill: first the unfinished ones of an earlier attempt, then new ones, cut when needed."""

    def __init__(self, tasks: TaskStore, bulk: BulkTable, clock: Callable[[], int], state: BackfillState) -> None:
        self._tasks, self._bulk, self._clock = tasks, bulk, clock
        self.state = state
        self._ranges: dict[int, RangeState] = {}
        self._waiting: list[int] = []
        self._cutting = asyncio.Lock()
        self._rate = Rate()

    def take_over(self, ranges: Mapping[int, RangeState]) -> None:
        """Take over the ranges that an earlier attempt stored."""
        self._ranges = dict(ranges)
        # A range that was not read completely is read again: its key may be ordered differently now.
        for number, one in self._ranges.items():
            if one.unread:
                self._ranges[number] = RangeState(after=one.after, upto=one.upto)
        self._waiting = sorted((n for n, one in self._ranges.items() if not one.done), reverse=True)
        self._count()

    async def paused(self) -> bool:
        """Return whether an operator requested a pause; a request that cannot be read counts as none."""
        try:
            return is_paused(await self._tasks.read(BACKFILL, CONTROL))
        except ValueError:
            return False

    async def next(self) -> tuple[int, RangeState] | None:
        """Return a range to do and its number, None if none is left."""
        async with self._cutting:
            if self._waiting:
                number = self._waiting.pop()
                return number, self._ranges[number]
            if self.state.planned:
                return None
            number = max(self._ranges, default=HEADER) + 1
            after = self._ranges[number - 1].upto if self._ranges else None
            upto = await self._bulk.bound(after, self.state.range_rows)
            self.state = self.state.model_copy(update={"planned": upto is None})
            await self.keep(number, RangeState(after=after, upto=upto))
            return number, self._ranges[number]

    @property
    def bounds(self) -> list[tuple[str | None, str | None]]:
        """The bounds of the ranges."""
        return [(one.after, one.upto) for one in self._ranges.values()]

    @property
    def unread(self) -> int:
        """Rows of the ranges that no page returned."""
        return sum(one.unread for one in self._ranges.values())

    async def keep(self, number: int, range_: RangeState) -> None:
        """Store the progress of a range, together with the overall state."""
        self._ranges[number] = range_
        self._count()
        await self._tasks.save(
            BACKFILL, {number: range_.model_dump_json().encode(), HEADER: self.state.model_dump_json().encode()}
        )

    async def say(self, **changes: object) -> None:
        """Store the overall state, with changes."""
        self.state = self.state.model_copy(update={**changes, "updated_at_ms": self._clock()})
        await self._tasks.save(BACKFILL, {HEADER: self.state.model_dump_json().encode()})

    def _count(self) -> None:
        now_ms, ranges = self._clock(), self._ranges.values()
        rows = sum(one.rows for one in ranges)
        self._rate = self._rate.with_sample(now_ms / 1000, rows)
        left = max(0, self.state.rows_estimated - rows)
        self.state = self.state.model_copy(
            update={
                "updated_at_ms": now_ms,
                "rows": rows,
                "points": sum(one.points for one in ranges),
                "handed_over": sum(one.handed_over for one in ranges),
                "ranges": len(self._ranges),
                "rate": self._rate.per_s,
                "eta_s": self._rate.eta_s(left),
            }
        )


async def begun(
    tasks: TaskStore, bulk: BulkTable, clock: Callable[[], int], *, model: str, range_rows: int, restart: bool
) -> Plan:
    """Return the plan of the unfinished backfill with this model, otherwise the plan of a new one.

    If stored state cannot be read, the backfill starts over: points that already exist stay as they are.
    """
    parts = await tasks.read(BACKFILL)
    old, ranges = (None if restart else _kept(parts)) or (None, {})
    estimated = await bulk.estimated_rows()
    now_ms = clock()
    if old is not None and old.state != "done" and old.model == model:
        fresh = {"state": "running", "updated_at_ms": now_ms, "rows_estimated": max(estimated, old.rows), "error": None}
        plan = Plan(tasks, bulk, clock, old.model_copy(update=fresh))
        plan.take_over(ranges)
    else:
        await tasks.clear(BACKFILL)
        if CONTROL in parts:
            await tasks.save(BACKFILL, {CONTROL: parts[CONTROL]})
        state = BackfillState(
            started_at_ms=now_ms, updated_at_ms=now_ms, model=model, range_rows=range_rows, rows_estimated=estimated
        )
        plan = Plan(tasks, bulk, clock, state)
    await plan.say()
    return plan


def _kept(parts: Mapping[int, bytes]) -> tuple[BackfillState, dict[int, RangeState]] | None:
    try:
        kept = backfill_kept(parts)
        if kept is not None and kept[0].planned != (bool(kept[1]) and kept[1][len(kept[1])].upto is None):
            raise ValueError("its last range is missing, or there is one too many")
        return kept
    except ValueError as error:
        log.warning("what is kept of an earlier backfill is not used: %s", str(error).partition(chr(10))[0])
        return None
