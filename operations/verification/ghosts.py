"""Documents that Qdrant shows and the table has not: every point is read once, in the order of point ids."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from connectors.failpoints import passing
from connectors.ports import PointPage
from operations.verification.pace import Throttle
from operations.verification.planning import Retried
from operations.verification.stores import Stores

_PAGE = 1000
_MOST_SEEN = 32_000_000


class Seen:
    """Which documents had a row when their range was read, in eight bytes each.

    Beyond `most` they are not remembered: for those the table is asked. Ids are told apart by Python's hash of 64 bits,
    which is another one in each process.
    """

    def __init__(self, most: int = _MOST_SEEN) -> None:
        self._most = most
        self._count = 0
        self._parts: list[npt.NDArray[np.int64]] = []
        self._sorted: npt.NDArray[np.int64] | None = None

    def add(self, ids: Sequence[str]) -> None:
        """Remember documents."""
        if self._count + len(ids) <= self._most:
            self._count += len(ids)
            self._parts.append(np.fromiter(map(hash, ids), np.int64, len(ids)))
            self._sorted = None

    def unknown(self, ids: Sequence[str]) -> list[str]:
        """Return those of the documents that are not remembered."""
        if self._sorted is None:
            self._sorted = np.sort(np.concatenate(self._parts)) if self._parts else np.empty(0, np.int64)
            self._parts = [self._sorted]
        wanted = np.fromiter(map(hash, ids), np.int64, len(ids))
        at = np.searchsorted(self._sorted, wanted)
        known = np.zeros(len(ids), bool)
        inside = at < len(self._sorted)
        known[inside] = self._sorted[at[inside]] == wanted[inside]
        return [one for one, is_known in zip(ids, known.tolist(), strict=True) if not is_known]


async def ghosts(
    stores: Stores, seen: Seen, throttle: Throttle, retried: Retried
) -> AsyncIterator[tuple[int, list[str]]]:
    """Yield for each page of points how many documents begin on it, and the ghosts among them.

    A document with points on several pages is among those of one, unless a chunk of it is there twice. Raises
    StoreUnavailable, TransientError.
    """

    def read(offset: str | None) -> asyncio.Task[PointPage]:
        return asyncio.create_task(retried(lambda: stores.vectors.scan(stores.name, offset, _PAGE)))

    reading: asyncio.Task[PointPage] | None = read(None)
    try:
        while reading is not None:
            page = await reading
            reading = None if page.next is None else read(page.next)
            begun, found = await retried(partial(_judged, stores, seen, page))
            passing("verify.after_points")
            yield begun, found
            await throttle.pause()
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _judged(stores: Stores, seen: Seen, page: PointPage) -> tuple[int, list[str]]:
    visible = [i for i, points in page.documents.items() if any(not p.deleted for p in points)]
    begun = sum(any(not p.deleted and p.chunk == 0 for p in page.documents[i]) for i in visible)
    doubtful = seen.unknown(visible)
    existing = await stores.table.existing(doubtful) if doubtful else set()
    return begun, await _once(stores, page, [i for i in doubtful if i not in existing])


async def _once(stores: Stores, page: PointPage, ids: Sequence[str]) -> list[str]:
    """Return those of the documents whose first visible chunk is on this page: a long one has points on several."""
    stored = await stores.vectors.stored(stores.name, ids) if ids else {}
    first = {i: min((p.chunk for p in points if not p.deleted), default=None) for i, points in stored.items()}
    return [i for i in ids if any(not p.deleted and p.chunk == first.get(i) for p in page.documents[i])]
