"""Which ranges a round covers: those of the last proof in key order, then new ones up to the table's end."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from connectors.ports import BulkTable
from migration.verify.proof import Proof
from migration.verify.ranges import Range

_FEW_RANGES = 8
_SPARSE = 8
T = TypeVar("T")


class Retried(Protocol):
    """Repeats a call that may succeed later."""

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what the call returns, or raise what its last attempt raised."""
        ...


class Plan:
    """Hands out ranges one by one; `cut` adds back the part that was cut off a range that had grown."""

    def __init__(self, proof: Proof, bulk: BulkTable, range_rows: int, retried: Retried) -> None:
        self._bulk, self._range_rows, self._retried = bulk, range_rows, retried
        self._known = deque(proof.chain())
        self._last = self._known[-1].upto if self._known else None
        self._ended = bool(self._known) and self._last is None
        self._next_number = proof.highest + 1

    async def next(self) -> Range | None:
        """Return the next range, None if there is none now. Raises StoreUnavailable."""
        if self._known:
            return self._known.popleft()
        if self._ended:
            return None
        after = self._last
        self._last = await self._retried(lambda: self._bulk.bound(after, self._range_rows))
        self._ended = self._last is None
        return self._new(after, self._last)

    def cut(self, after: str, upto: str | None) -> None:
        """Add the rest of a range as a range of its own."""
        self._known.append(self._new(after, upto))

    def _new(self, after: str | None, upto: str | None) -> Range:
        number, self._next_number = self._next_number, self._next_number + 1
        return Range(number, after, upto)


def is_sparse(proof: Proof, range_rows: int) -> bool:
    """Return whether the ranges of the last proof have become so empty that new ones are better."""
    rows = sum(one.rows for one in proof.ranges.values())
    return len(proof.ranges) > _FEW_RANGES and rows * _SPARSE < len(proof.ranges) * range_rows
