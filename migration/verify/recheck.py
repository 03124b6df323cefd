"""The recheck: a difference is *pending* until everything in flight has drained, and only then *different*.

A document counts as different if its row and points were in the same state before and after the barrier had drained.
A document whose points follow its row is not different, because its changes arrive: either the points show a state
that the row had at an earlier comparison, or they were written again while the row changed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from connectors.errors import TransientError
from domain.comparison import Difference, LegacyFacts, compare, points_digest
from domain.points import newest_version
from migration.collection import CollectionStores
from migration.verify.compare import Candidate, Look, Points, look_locked, small
from migration.verify.options import Bounds
from migration.verify.ports import Barrier, Waits

_PAGE = 200
_STATES = 8
_BLOCKED_S = 1.0
_PAUSE_S = 0.1


async def waits(stores: CollectionStores, ids: Collection[str]) -> dict[str, int]:
    """Return, for each document whose ledger row waits for a producer's version, that version."""
    rows = await stores.ledger.read(list(ids))
    return {one: row.state.written for one, row in rows.items() if row.state.pending or row.state.removed}


async def at_rest(_: float) -> bool:
    """Stand in for a barrier when nothing is in flight."""
    return True


@dataclass(slots=True)
class Rechecked:
    """The outcome for candidates. Nothing can be decided yet about the `pending` ones.

    `waits` holds the producers' versions that their ledger rows waited for before the barrier.
    """

    different: list[Difference] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    pending: list[Difference] = field(default_factory=list)
    waits: Waits = field(default_factory=dict)


@dataclass(slots=True)
class _Followed:
    states: list[LegacyFacts | None]
    digest: bytes
    first_version: int

    def at_same(self, facts: LegacyFacts | None, points: Points) -> bool:
        """Return whether row and points are unchanged since the previous comparison."""
        return _row(self.states[-1]) == _row(facts) and self.digest == points_digest(points)

    def moved_with(self, facts: LegacyFacts | None, points: Points) -> bool:
        """Return whether the row changed since the first comparison and the points were written again."""
        return _row(self.states[0]) != _row(facts) and newest_version(points) > self.first_version


class Rechecker:
    """Rechecks candidates of one collection."""

    def __init__(self, stores: CollectionStores, bounds: Bounds, barrier: Barrier) -> None:
        self._stores, self._bounds, self._barrier = stores, bounds, barrier
        self._blocked = False

    async def confirm(self, candidates: Sequence[Candidate]) -> Rechecked:
        """Follow candidates until each is settled or different, at most until the recheck timeout.

        Raises StoreUnavailable, TransientError if they cannot be compared.
        """
        done = Rechecked(waits=await waits(self._stores, [s.id for s in candidates]))
        waiting = {s.id: _Followed([s.facts], s.digest, s.version) for s in candidates}
        # If the barrier did not drain the last time, the next candidates do not wait as long for it again.
        recheck_timeout_s = (
            min(_BLOCKED_S, self._bounds.recheck_timeout_s) if self._blocked else self._bounds.recheck_timeout_s
        )
        ends = time.monotonic() + recheck_timeout_s
        pause_s = self._bounds.recheck_delay_s
        while waiting:
            await asyncio.sleep(pause_s)
            passed = await self._passed(max(_BLOCKED_S, ends - time.monotonic()))
            last = time.monotonic() >= ends
            pause_s = max(pause_s, _PAUSE_S)
            for page in _pages(list(waiting)):
                seen = await look_locked(self._stores, page)
                for document_id in page:
                    if self._decide(document_id, waiting[document_id], seen, passed, last, done):
                        del waiting[document_id]
        return done

    async def _passed(self, limit_s: float) -> bool:
        try:
            passed = await self._barrier(limit_s)
        except TransientError:
            passed = False
        self._blocked = not passed
        return passed

    def _decide(
        self, document_id: str, followed: _Followed, seen: Look, passed: bool, last: bool, done: Rechecked
    ) -> bool:
        """Return whether the document needs no further recheck, and note the outcome."""
        facts, points = small(seen.facts[document_id]), seen.points.get(document_id, ())
        difference = seen.differences.get(document_id)
        if difference is None or self._follows(difference, followed, points):
            done.settled.append(document_id)
            return True
        if passed and followed.at_same(facts, points):
            done.different.append(difference)
            return True
        if last:
            if followed.moved_with(facts, points):
                done.settled.append(document_id)
            else:
                done.pending.append(difference)
            return True
        followed.states = [followed.states[0], *followed.states[1:][-_STATES:], facts]
        followed.digest = points_digest(points)
        return False

    def _follows(self, difference: Difference, followed: _Followed, points: Points) -> bool:
        """Return whether the points show a state that the row had at an earlier comparison, and are not damaged."""
        written = newest_version(points) > followed.first_version
        if not written and (difference.reason.is_damage or len(set(map(_row, followed.states))) == 1):
            return False
        return any(compare(difference.id, state, points, model=self._stores.model) is None for state in followed.states)


def _row(facts: LegacyFacts | None) -> tuple[object, ...] | None:
    return None if facts is None else (facts.version, facts.content_hash, facts.given)


def _pages(ids: list[str]) -> list[list[str]]:
    return [ids[start : start + _PAGE] for start in range(0, len(ids), _PAGE)]
