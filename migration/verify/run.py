"""One round of verification: several ranges at a time with concurrent rechecks, then orphans, then the sample.

The database, Qdrant and this process work at the same time. At most one page of each range is in memory at any time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import stamina

from connectors.errors import CrossfadeError, Refused, TransientError
from migration.collection import CollectionStores
from migration.coverage import gaps
from migration.verify.compare import Candidate, candidate
from migration.verify.options import RoundOptions
from migration.verify.orphans import orphans
from migration.verify.ports import DifferenceSink
from migration.verify.proof import Plan, Proof, is_sparse
from migration.verify.ranges import Range, Walk
from migration.verify.recheck import Rechecker
from migration.verify.result import Verification
from migration.verify.tally import Reservoir, Tally
from schemas.tasks import PROOF

log = logging.getLogger("crossfade.verify")
T = TypeVar("T")
Progress = Callable[[Verification], None]

ATTEMPTS = 4
_WAIT_MAX_S = 3.0
_NAMELESS = "their payload has no text under document_id: crossfade did not write them, and searches leave them out"
_GIVEN_UP = 3
_WAITING = 16
# Candidates are collected for at most this long, and up to this many documents, before they are rechecked together.
_TOGETHER_S = 10.0
_TOGETHER = 5000
# An interrupted run can be resumed for this long after it ended; later, what it proved would be too old.
_RESUMED_MS = 3_600_000


async def verify(
    stores: CollectionStores,
    options: RoundOptions,
    sink: DifferenceSink,
    *,
    number: int = 1,
    progress: Progress = lambda _: None,
) -> Verification:
    """Compare both stores of a collection in both directions and store the proof; `number` is that of the round.

    Raises Refused if another process verifies the collection, StoreUnavailable if the table cannot be divided or the
    proof cannot be stored, Misconfigured.
    """
    async with _held(stores):
        proof = await Proof.read(stores.tasks)
        kept = bool(proof.ranges)

        def one_round(options: RoundOptions) -> Round:
            return Round(stores, options, sink, proof, Verification(stores.name, number, options.clock()), progress)

        try:
            return await one_round(options).run()
        except Refused as error:
            if not kept:
                raise
            log.warning("%s: the ranges of the last proof cannot be used and are made again: %s", stores.name, error)
            return await one_round(replace(options, restart=True)).run()


def _held(stores: CollectionStores) -> AbstractAsyncContextManager[None]:
    return nullcontext() if stores.tasks is None else stores.tasks.hold(PROOF)


class Round:
    """The work of one round; its tally holds the counts."""

    def __init__(
        self,
        stores: CollectionStores,
        options: RoundOptions,
        sink: DifferenceSink,
        proof: Proof,
        result: Verification,
        progress: Progress,
    ) -> None:
        self._stores, self._options, self._proof, self._result = stores, options, proof, result
        self._progress = progress
        reservoir = Reservoir(options.bounds.sample, result.started_at_ms)
        self._sink = sink
        self._tally = Tally(result, proof, options.digests, sink, reservoir, options.bounds.listed)
        self._walk = Walk(stores, options.bounds, options.digests, options.throttle, full=options.full)
        self._rechecker = Rechecker(stores, options.bounds, options.barrier)
        self._candidates: asyncio.Queue[tuple[int | None, list[Candidate]] | None] = asyncio.Queue(_WAITING)
        self._columns = stores.checksums.columns if stores.checksums else ""
        self._kind: dict[str, bool | str] = {
            "continuous": options.continuous,
            "full": options.full,
            "columns": self._columns,
        }
        self._since_ms: int | None = None
        self._failed_in_a_row = 0

    async def run(self) -> Verification:
        """Do the round; however it ends, the next one continues with what this one had not proved."""
        options, result = self._options, self._result
        await self._begin()
        try:
            await _together(self._read(), self._confirm())
            await self._cover()
            await self._audit()
            await self._sample()
        except CrossfadeError as error:
            await self._failed(error)
            raise
        result.ended_at_ms = options.clock()
        result.ranges = [self._proof.ranges[rng.number] for rng in self._proof.chain()]
        await self._proof.save(result, result.ended_at_ms, state="done", kind=self._kind)
        return result

    async def _begin(self) -> None:
        proof, options = self._proof, self._options
        await proof.prune()
        state = proof.state
        recent = state is not None and options.clock() - state.updated_at_ms <= _RESUMED_MS
        enough = state is not None and (state.full or not options.full)
        begin_again = options.restart or (state is not None and state.columns != self._columns)
        if state is not None and recent and enough and proof.interrupted and not begin_again:
            self._result.started_at_ms = self._since_ms = state.started_at_ms
        elif begin_again or is_sparse(proof, options.bounds.range_rows):
            await proof.clear()
            if options.digests is not None:
                options.digests.clear()
        await proof.save(self._result, options.clock(), kind=self._kind)

    async def _failed(self, error: CrossfadeError) -> None:
        try:
            await self._proof.save(
                self._result, self._options.clock(), state="failed", error=str(error), kind=self._kind
            )
        except CrossfadeError as second:  # the first error is the one to report
            log.debug("the proof could not be kept: %s", second)

    async def _read(self) -> None:
        plan = Plan(self._proof, self._stores.bulk, self._options.bounds.range_rows, _retried)
        planning = asyncio.Lock()
        await _together(*(self._walk_ranges(plan, planning) for _ in range(self._options.bounds.in_flight)))
        await self._orphans()
        await self._candidates.put(None)

    async def _walk_ranges(self, plan: Plan, planning: asyncio.Lock) -> None:
        while True:
            async with planning:
                rng = await plan.next()
            if rng is None:
                return
            await self._walk_range(rng, plan)
            await self._proof.save(self._result, self._options.clock(), kind=self._kind)
            self._progress(self._result)

    async def _walk_range(self, rng: Range, plan: Plan) -> None:
        done = None if self._since_ms is None else self._proof.proved_since(rng.number, self._since_ms)
        if done is not None:
            self._tally.resumed(rng, done)
            return
        begun = self._options.clock()
        what = f"the rows after {rng.after or 'the beginning'}"
        if self._failed_in_a_row >= _GIVEN_UP:
            self._tally.unknown(what, rng, begun, "not read, because a store does not answer")
            return
        try:
            seen = await _retried(lambda: self._walk.look_at(rng))
        except TransientError as error:
            self._failed_in_a_row += 1
            self._tally.unknown(what, rng, begun, str(error))
            return
        self._failed_in_a_row = 0
        if seen.rest is not None:
            plan.cut(*seen.rest)
        await self._tally.walked(seen, begun)
        if seen.candidates:
            await self._candidates.put((rng.number, seen.candidates))

    async def _cover(self) -> None:
        """Compare the rows of the ranges with the table's own number of rows, in one snapshot."""
        if self._failed_in_a_row >= _GIVEN_UP:
            return
        begun, ranges = self._options.clock(), [(rng.after, rng.upto) for rng in self._proof.chain()]
        try:
            altered = await _retried(self._stores.table.altered)
            found = await _retried(lambda: self._stores.bulk.coverage(ranges))
        except TransientError as error:
            self._tally.unknown("the number of rows of the table", None, begun, str(error))
            return
        if altered is not None:
            self._tally.unknown("rows of columns that changed meanwhile", None, begun, altered)
        for what, reason in gaps(found):
            self._tally.unknown(what, None, begun, reason)

    async def _orphans(self) -> None:
        reported: set[str] = set()
        nameless = 0
        pages = orphans(self._stores, self._tally.seen, self._options.throttle, _retried)
        begun = self._options.clock()
        try:
            async for page in pages:
                self._result.vector_documents += page.begun
                nameless += page.nameless
                fresh = [one for one in page.orphans if one not in reported]
                reported.update(fresh)
                if fresh:
                    await self._candidates.put((None, await _retried(partial(self._without_row, fresh))))
                self._progress(self._result)
        except TransientError as error:
            self._tally.unknown("points without a row", None, begun, str(error))
        if nameless:
            self._tally.unknown(f"points of no document: {nameless}", None, begun, _NAMELESS)

    async def _without_row(self, ids: list[str]) -> list[Candidate]:
        points = await self._stores.vectors.stored(self._stores.name, ids, content=True)
        return [candidate(one, None, points.get(one, ())) for one in ids]

    async def _confirm(self) -> None:
        """Recheck candidates, those of several ranges together, because each recheck takes seconds."""
        ended = False
        while not ended:
            found = await self._collected()
            ended = found[-1] is None
            candidates = [item for item in found if item is not None]
            if candidates:
                await self._decide(candidates)

    async def _collected(self) -> list[tuple[int | None, list[Candidate]] | None]:
        """Return what waits for a recheck; the last item is None if nothing more will come."""
        found = [await self._candidates.get()]
        ends = asyncio.get_running_loop().time() + _TOGETHER_S
        while found[-1] is not None and sum(len(some[1]) for some in found if some) < _TOGETHER:
            try:
                async with asyncio.timeout_at(ends):
                    found.append(await self._candidates.get())
            except TimeoutError:
                break
        return found

    async def _decide(self, found: Sequence[tuple[int | None, list[Candidate]]]) -> None:
        numbers = {number for number, _ in found if number is not None}
        candidates = {one.id: (number, one) for number, some in found for one in some}
        try:
            done = await _retried(lambda: self._rechecker.confirm([one for _, one in candidates.values()]))
        except TransientError as error:
            self._tally.undecided(numbers, len(candidates), str(error))
            return
        await self._tally.decided(numbers, {i: number for i, (number, _) in candidates.items()}, done)

    async def _audit(self) -> None:
        """If repair is requested, fix ledger rows that would misdirect a later change."""
        options = self._options
        drained = partial(options.barrier, options.bounds.recheck_timeout_s)
        try:
            found = await _retried(lambda: self._sink.unsound(drained))
        except TransientError as error:
            self._tally.unknown("the ledger", None, options.clock(), str(error))
            return
        await self._tally.unsound(found)

    async def _sample(self) -> None:
        chosen, options = self._tally.reservoir.chosen, self._options
        if options.resample is None or not chosen:
            return
        try:
            self._result.sample, found = await options.resample(chosen)
        except TransientError as error:
            self._tally.unknown("the sample of vectors", None, options.clock(), str(error))
            return
        await self._tally.different(found)


async def _retried(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call that may succeed later, up to a few times. Raises what the last call raised."""
    async for attempt in stamina.retry_context(
        on=TransientError, attempts=ATTEMPTS, timeout=None, wait_max=_WAIT_MAX_S
    ):
        with attempt:
            return await call()
    raise AssertionError("retries end by a return or an error")


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    """Run coroutines concurrently; the first error cancels the others and is raised unchanged."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
