"""Orphans: documents that Qdrant shows and the table lacks. All point ids are read once, unknown points looked up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from connectors.failpoints import passing
from connectors.vector_ports import NAMELESS, IdPage
from migration.collection import CollectionStores
from migration.verify.ports import Retried, Throttled
from schemas.keys import POINT_ID_BYTES

_PAGE = 5000
_MOST_SEEN = 32_000_000
# The variant of a UUID occupies the first two bits of its second half.
_HASH_BITS = np.uint64(2**62 - 1)
Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


class Seen:
    """Remembers the points of documents that had a row when their range was read, in eight bytes each.

    Points beyond `most` are not remembered: the table is queried for them. Ids are distinguished by 62 bits of their
    hash.
    """

    def __init__(self, most: int = _MOST_SEEN) -> None:
        self._most = most
        self._count = 0
        self._beginnings, self._others = _Known(), _Known()

    def add(self, beginnings: bytes, others: bytes) -> None:
        """Remember points by their `point_hash`; a visible document begins with each of `beginnings`."""
        count = (len(beginnings) + len(others)) // 8
        if self._count + count <= self._most:
            self._count += count
            self._beginnings.add(np.frombuffer(beginnings, ">u8"))
            self._others.add(np.frombuffer(others, ">u8"))

    def unknown(self, ids: bytes) -> tuple[bytes, int]:
        """Return the packed ids that are not remembered, and how many of the remembered ones begin a document."""
        hashes = np.frombuffer(ids, ">u8").reshape(-1, 2)[:, 1]
        begin = self._beginnings.has(hashes)
        known = begin | self._others.has(hashes)
        return np.frombuffer(ids, np.uint8).reshape(-1, POINT_ID_BYTES)[~known].tobytes(), int(begin.sum())


class _Known:
    """A set of hashes, sorted when it is queried."""

    def __init__(self) -> None:
        self._parts: list[Hashes] = [np.empty(0, np.uint64)]

    def add(self, hashes: npt.NDArray[np.generic]) -> None:
        self._parts.append(hashes.astype(np.uint64) & _HASH_BITS)

    def has(self, hashes: npt.NDArray[np.generic]) -> Mask:
        if len(self._parts) > 1:
            self._parts = [np.sort(np.concatenate(self._parts))]
        known, wanted = self._parts[0], hashes.astype(np.uint64) & _HASH_BITS
        if not len(known):
            return np.zeros(len(wanted), bool)
        found: Mask = known[np.minimum(np.searchsorted(known, wanted), len(known) - 1)] == wanted
        return found


@dataclass(frozen=True, slots=True)
class Judged:
    """The result for a page of points: how many documents begin on it, the orphans, and how many points name none."""

    begun: int
    orphans: list[str]
    nameless: int


async def orphans(stores: CollectionStores, seen: Seen, throttle: Throttled, retried: Retried) -> AsyncIterator[Judged]:
    """Yield the result for each page of points.

    An orphan with points on several pages is reported for each of them. Raises StoreUnavailable, TransientError.
    """

    def read(after: str | None) -> asyncio.Task[IdPage]:
        return asyncio.create_task(retried(lambda: stores.vectors.scan_ids(stores.name, after, _PAGE)))

    reading: asyncio.Task[IdPage] | None = read(None)
    try:
        while reading is not None:
            page = await reading
            reading = None if page.next is None else read(page.next)
            judged = await retried(partial(_judged, stores, seen, page))
            passing("verify.after_points")
            yield judged
            await throttle.pause()
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _judged(stores: CollectionStores, seen: Seen, page: IdPage) -> Judged:
    unknown, begun = seen.unknown(page.ids)
    if not unknown:
        return Judged(begun, [], 0)
    documents = await stores.vectors.points(stores.name, unknown)
    nameless = [point for point in documents.pop(NAMELESS, []) if not point.deleted]  # a tombstone is never visible
    visible = [i for i, points in documents.items() if any(not p.deleted for p in points)]
    begun += sum(any(p.begins for p in documents[i]) for i in visible)
    existing = await stores.table.existing(visible) if visible else set()
    return Judged(begun, [i for i in visible if i not in existing], len(nameless))
