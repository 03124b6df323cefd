"""Shadow reads: a sample of the answered questions is asked of the other side too, and both answers are compared.

Nothing here is waited for by an answer. What there is no room for is shed and counted, and so is what a stop cancels.
The other side's circuit breaker is asked whether it may be called, and not told how that went: a shadow read never
takes a backend away from users.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from connectors.errors import CrossfadeError, EmbeddingFailed, Refused
from connectors.ports import Bus
from domain.filters import matches
from domain.rollout.phases import PHASES
from domain.rollout.ranking import overlap, rank_biased_overlap, rank_shift
from migration.context import HandlerContext
from schemas.queries import (
    Attempt,
    AttemptOutcome,
    Backend,
    Hit,
    MissingHit,
    MissingReason,
    RankedHit,
    ShadowCompared,
)
from search.answer import Search, ask_backend
from search.breakers import Breakers
from topics.catalogue import COMPARED

SOURCE = "crossfade/shadow"
IN_FLIGHT = 4
_STEPS = 1_000_000
log = logging.getLogger("crossfade.shadow")


def _drawn(query_id: str, purpose: str, share: float) -> bool:
    """Draw a share of the questions, the same ones each time: a question that arrives twice is drawn twice or never."""
    hashed = int.from_bytes(blake2b(f"{purpose}\0{query_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest())
    return hashed % _STEPS < share * _STEPS


@dataclass(slots=True)
class _Budget:
    """So many per second, with a reserve of one second."""

    per_second: float
    left: float
    at_s: float

    def take(self, now_s: float) -> bool:
        most = max(1.0, self.per_second)
        self.left = min(most, self.left + (now_s - self.at_s) * self.per_second)
        self.at_s = now_s
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass(slots=True)
class ShadowReads:
    """The comparisons in flight of this process, at most `in_flight` at once."""

    bus: Bus
    ctx: HandlerContext
    breakers: Breakers
    in_flight: int = IN_FLIGHT
    clock_s: Callable[[], float] = time.monotonic
    _budgets: dict[str, _Budget] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def offer(self, search: Search, answered: Backend, hits: Sequence[Hit]) -> None:
        """Compare the answer to a question if it is in the sample and there is room for it. Returns at once."""
        name, wanted = search.query.collection, search.ports.settings.shadow
        if not PHASES[search.phase].compared or search.query.route is not None:
            return
        if not _drawn(search.query.id, "shadow", wanted.rate):
            return
        now_s = self.clock_s()
        budget = self._budgets.setdefault(name, _Budget(wanted.per_second, max(1.0, wanted.per_second), now_s))
        if len(self._tasks) >= self.in_flight or not budget.take(now_s):
            self.ctx.telemetry.compared(name, "shed")
            return
        task = asyncio.create_task(self._compare(search, answered, hits))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel what is in flight."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _compare(self, search: Search, answered: Backend, hits: Sequence[Hit]) -> None:
        name = search.query.collection
        try:
            found = await self._compared(search, answered, hits)
            event_id = f"{search.query.id}/{ShadowCompared.ce_type}"
            record = self.ctx.emit(
                found, COMPARED, search.query.id, event_id=event_id, source=SOURCE, trace=search.trace
            )
            await self.bus.publish([record])
        except asyncio.CancelledError:
            self.ctx.telemetry.compared(name, "cancelled")
            raise
        except Exception as error:  # whatever went wrong: it is counted, and no question waits for it
            self.ctx.telemetry.compared(name, "failed")
            log.warning("a comparison of %s failed: %s", name, error)
        else:
            self.ctx.telemetry.compared(name, "compared" if found.overlap is not None else "failed")

    async def _compared(self, search: Search, answered: Backend, hits: Sequence[Hit]) -> ShadowCompared:
        query = search.query
        other: Backend = "legacy" if answered == "qdrant" else "qdrant"
        own = next(attempt for attempt in search.attempts if attempt.backend == answered)
        attempt, theirs, error = await self._ask(search, other)
        found = ShadowCompared(
            query_id=query.id,
            collection=query.collection,
            phase=search.phase,
            tenant=query.tenant,
            text=query.text,
            limit=query.limit,
            answered=own,
            compared=attempt,
            answer=_ranked(hits),
            error=error,
        )
        if theirs is None:
            return found
        first, second = _ids(hits), _ids(theirs)
        noise: dict[str, float] = {}
        if _drawn(query.id, "noise", search.ports.settings.shadow.noise_share):
            _, again, _ = await self._ask(search, answered)
            if again is not None:
                twice = _ids(again)
                noise = {
                    "noise_overlap": overlap(first, twice, query.limit),
                    "noise_rbo": rank_biased_overlap(first, twice),
                }
        return found.model_copy(
            update={
                "overlap": overlap(first, second, query.limit),
                "rbo": rank_biased_overlap(first, second),
                "rank_shift": rank_shift(first, second),
                "score_drift": _drift(search, hits, theirs),
                "missing": await _missing(search, other, first, set(second)),
                "only_there": [
                    hit for hit in await _missing(search, answered, second, set(first)) if hit.reason == "not_stored"
                ],
                "other": _ranked(theirs),
                **noise,
            }
        )

    async def _ask(self, search: Search, backend: Backend) -> tuple[Attempt, Sequence[Hit] | None, str | None]:
        if not self.breakers.available(search.query.collection)[backend]:
            return Attempt(backend=backend, outcome="skipped"), None, "circuit open"
        # Of its own, so that neither the timings nor the errors of the answer change.
        shadow = replace(search, timings_ms={}, errors=[], attempts=[])
        limit_s = self.breakers.routing.backend_timeout_ms / 1000
        started = time.perf_counter()
        hits: Sequence[Hit] | None = None
        outcome: AttemptOutcome = "answered"
        error: str | None = None
        try:
            async with asyncio.timeout(limit_s):
                hits = await ask_backend(shadow, backend)
        except (Refused, EmbeddingFailed) as refused:
            outcome, error = "refused", str(refused)
        except TimeoutError:
            outcome, error = "timed_out", f"no answer within {limit_s:g} s"
        except CrossfadeError as failed:
            outcome, error = "failed", str(failed)
        ms = round((time.perf_counter() - started) * 1000, 3)
        return Attempt(backend=backend, outcome=outcome, ms=ms), hits, error and error[:500]


def _ids(hits: Sequence[Hit]) -> list[str]:
    return [hit.document_id for hit in hits]


def _ranked(hits: Sequence[Hit]) -> tuple[RankedHit, ...]:
    return tuple(RankedHit(document_id=hit.document_id, score=hit.score) for hit in hits)


def _drift(search: Search, hits: Sequence[Hit], theirs: Sequence[Hit]) -> float | None:
    """Return how much the scores of the same documents differ; None where one side ranks text and the other vectors."""
    if search.ports.vector_search is None:
        return None
    scores = {hit.document_id: hit.score for hit in theirs}
    drifts = [abs(hit.score - scores[hit.document_id]) for hit in hits if hit.document_id in scores]
    return sum(drifts) / len(drifts) if drifts else None


async def _missing(search: Search, other: Backend, first: Sequence[str], second: set[str]) -> tuple[MissingHit, ...]:
    ports, query = search.ports, search.query
    absent = [document for document in first if document not in second]
    if not absent:
        return ()
    reasons: dict[str, MissingReason] = {}
    if other == "legacy":
        existing = await ports.table.existing(absent)
        reasons = {document: "ranked_lower" for document in absent if document in existing}
    else:
        for document, chunks in (await ports.vectors.stored(ports.name, absent, content=True)).items():
            live = [chunk for chunk in chunks if not chunk.deleted]
            if live:
                fits = live[0].tenant == query.tenant and matches(live[0].metadata, query.filter)
                reasons[document] = "ranked_lower" if fits else "filtered"
    ranks = {document: rank for rank, document in enumerate(first, 1)}
    return tuple(
        MissingHit(document_id=document, rank=ranks[document], reason=reasons.get(document, "not_stored"))
        for document in absent
    )
