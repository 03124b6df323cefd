"""Verification of one key range: by the checksums of its last proof if nothing changed, otherwise row by row.

Checksums are taken before rows are read. A row that changes in between is read in its new state, and the next checksum
differs. In the opposite order, a change could hide behind its own checksum.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise

from connectors.failpoints import passing
from connectors.sql.checksums import rows_counted
from domain.comparison import checksum_of, is_checked, points_digest, wrong_vectors
from domain.legacy import LegacyRow
from migration.collection import CollectionStores
from migration.coverage import passed_over
from migration.verify.compare import Candidate, Look, Points, candidate, look
from migration.verify.digests import Part
from migration.verify.options import Bounds
from migration.verify.ports import DigestStore, Throttled
from schemas.keys import point_hash

PART_ROWS = 400
_CUT = 2
_ROW_BYTES = 200
_OFFERED = 20
_FIRST = 64
_MOST = 1000
_PAGE_BYTES = 8 * 1024 * 1024
_GROWTH = 4
_UNPROVED = bytes(16)


@dataclass(frozen=True, slots=True)
class Range:
    """The rows after the key `after`, up to and including `upto` (None: from the beginning, to the end)."""

    number: int
    after: str | None
    upto: str | None


@dataclass(slots=True)
class Walked:
    """The result of one pass over a range. `offered` are some equal documents with computed vectors, for the sample.

    `unread` counts rows that are in the range but were returned neither by its pages nor by their ids.
    `rest` is what was cut off because the range had grown. `beginnings` and `others` are the hashes of all points of
    the rows: a visible document begins with each point in `beginnings`.
    """

    range: Range
    rows: int = 0
    rows_read: int = 0
    points: int = 0
    beginnings: list[bytes] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    unread: int = 0
    offered: list[str] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    rest: tuple[str, str | None] | None = None

    @property
    def checksum(self) -> str | None:
        """A digest of the checksums of its parts, None if one of them is not known."""
        sums = [part.checksum for part in self.parts]
        return blake2b("".join(sums).encode(), digest_size=16).hexdigest() if sums and all(sums) else None


class Pages:
    """Chooses the size of the next page by the bytes of earlier ones, so that long documents take little memory."""

    def __init__(self, most: int = _MOST, first: int = _FIRST) -> None:
        self._most = max(1, most)
        self.limit = max(1, min(first, self._most))

    @property
    def next_first(self) -> int:
        """The number to begin with if documents are expected to be like these."""
        return min(_FIRST, self.limit)

    def saw(self, documents: int, size: int) -> None:
        """Note a page that was read."""
        if documents:
            fitting = max(1, _PAGE_BYTES * documents // max(1, size))
            self.limit = max(1, min(self._most, fitting, self.limit * _GROWTH))


class Walk:
    """Compares ranges of one collection. `full` reads every row, whatever its checksum is."""

    def __init__(
        self, stores: CollectionStores, bounds: Bounds, digests: DigestStore | None, throttle: Throttled, *, full: bool
    ) -> None:
        self._stores, self._bounds, self._digests, self._throttle = stores, bounds, digests, throttle
        self._full = full
        self._first = Pages().limit

    async def look_at(self, rng: Range) -> Walked:
        """Compare a range once. Raises StoreUnavailable, TransientError; then nothing is half counted."""
        seen = Walked(rng)
        known = self._digests.read(rng.number, rng.after, rng.upto) if self._digests else None
        for part in known or [Part(rng.after, rng.upto, "", [], b"")]:
            async for bounds, checksum, unchanged in self._pieces(part):
                if unchanged:
                    await self._by_digest(part, seen)
                else:
                    await self._by_rows(bounds, checksum, seen)
                if seen.rest is not None:
                    return seen
        return seen

    async def _pieces(self, part: Part) -> AsyncIterator[tuple[tuple[str | None, str | None], str, bool]]:
        """Yield a part whole, or in pieces of a few hundred rows if it changed.

        Each item is the bounds, the checksum, and whether the checksum is the same as at the last proof.
        """
        whole = (part.after, part.upto)
        if self._digests is None or self._stores.checksums is None:
            yield whole, "", False
            return
        (checksum,) = await self._stores.checksums.of_ranges([whole])
        known = bool(part.checksum) and rows_counted(checksum) == len(part.ids)
        same = known and checksum == part.checksum and not self._full
        if same or len(part.ids) <= _CUT * PART_ROWS:
            yield whole, checksum, same
            return
        cuts = [part.after, *part.ids[PART_ROWS - 1 : -PART_ROWS : PART_ROWS], part.upto]
        pieces = list(pairwise(cuts))
        for piece, own in zip(pieces, await self._stores.checksums.of_ranges(pieces), strict=True):
            yield piece, own, False

    async def _by_rows(self, bounds: tuple[str | None, str | None], checksum: str, seen: Walked) -> None:
        after, upto = begun, end = bounds
        rows_before = seen.rows
        counted = rows_counted(checksum) if checksum else await self._stores.bulk.count(begun, end)
        ids: dict[str, bytes] = {}
        pages, more = Pages(self._bounds.page, self._first), True
        while more:
            limit = pages.limit
            rows = await self._stores.bulk.scan_range(after, upto, limit)
            fresh = {row.id: row for row in rows if row.id not in ids}
            if not fresh:
                break
            passing("verify.after_rows")
            found = await look(self._stores, list(fresh), fresh)
            pages.saw(len(rows), sum(map(_size, rows)))
            self._first = pages.next_first
            self._count(found, list(fresh), seen)
            seen.rows_read += len(fresh)
            ids |= {i: _digest(found, i) for i in fresh}
            after = rows[-1].id
            more = len(rows) == limit and after != upto
            await self._throttle.pause()
            if more and seen.rows - rows_before >= _CUT * self._bounds.range_rows:
                seen.range = Range(seen.range.number, seen.range.after, after)
                seen.rest = (after, upto)
                end, checksum = after, ""  # the checksum covers more rows than these
                counted = await self._stores.bulk.count(begun, end)
                break
        if len(ids) != counted and await self._missed((begun, end), ids, counted, seen):
            checksum = ""
        seen.parts.append(Part(begun, end, checksum, list(ids), b"".join(ids.values())))

    async def _missed(
        self, bounds: tuple[str | None, str | None], ids: Mapping[str, bytes], counted: int, seen: Walked
    ) -> bool:
        """Compare rows of a range that its pages did not return, by their ids; return whether there are any.

        These include rows inserted behind the reading position. Rows that no way of reading returns count as unread.
        So do rows that are passed over because the order of the key is not that of the comparisons.
        """
        bulk = self._stores.bulk
        missed = [one for one in await bulk.ids(*bounds) if one not in ids]
        for start in range(0, len(missed), self._bounds.page):
            page = missed[start : start + self._bounds.page]
            rows = await self._stores.table.rows(page)
            self._count(await look(self._stores, list(rows), rows), list(rows), seen)
            seen.rows_read += len(rows)
            lost = {*page} - {*rows}
            if lost:
                seen.unread += len(lost.intersection(await bulk.ids(*bounds)))
        if missed and not seen.unread and len(ids) < counted:
            seen.unread += await passed_over(bulk, *bounds)
        return bool(missed)

    async def _by_digest(self, part: Part, seen: Walked) -> None:
        """Compare the points of a part whose rows are those of its last proof; fully compare documents that differ."""
        pages = Pages(self._bounds.page, self._first)
        digests: list[bytes] = []
        for some in _paged(part.pairs(), pages):
            ids = [name for name, _ in some]
            stored = await self._stores.vectors.stored(self._stores.name, ids, content=True)
            doubtful = self._changed(some, stored)
            pages.saw(len(ids), sum(len(p.text or "") + len(p.vector or b"") for ps in stored.values() for p in ps))
            close = Look({}, {i: points for i, points in stored.items() if i not in doubtful})
            if doubtful:
                seen.rows_read += len(doubtful)
                looked = await look(self._stores, doubtful, await self._stores.table.rows(doubtful))
                close = Look(looked.facts, {**close.points, **looked.points}, looked.differences, looked.unchecked)
            self._count(close, ids, seen)
            digests += [_digest(close, i) if i in doubtful else digest for i, digest in some]
            await self._throttle.pause()
        seen.parts.append(Part(part.after, part.upto, part.checksum, part.ids, b"".join(digests)))

    def _changed(self, some: Sequence[tuple[str, bytes]], stored: Mapping[str, Points]) -> list[str]:
        """Return the documents whose points differ from the last proof, or from their own checksums."""
        changed = {
            i
            for i, digest in some
            if points_digest(stored.get(i, ())) != digest
            or any(not p.deleted and p.checksum != checksum_of(i, p) for p in stored.get(i, ()))
            or not is_checked(stored.get(i, ()))
        }
        same = [(i, p) for i, ps in stored.items() if i not in changed for p in ps if not p.deleted]
        wrong = wrong_vectors([p for _, p in same], [None] * len(same), self._stores.dimension)
        changed |= {same[n][0] for n in wrong}
        return [i for i, _ in some if i in changed]

    def _count(self, found: Look, page: Sequence[str], seen: Walked) -> None:
        seen.rows += len(page)
        seen.points += found.visible
        seen.unchecked += found.unchecked
        for i in page:
            points = found.points.get(i, ())
            for point in points:
                hashes = seen.beginnings if point.begins else seen.others
                hashes.append(point_hash(self._stores.name, i, point.chunk))
            if i in found.differences:
                seen.candidates.append(candidate(i, found.facts.get(i), points))
        for i in page[:: max(1, len(page) // _OFFERED)]:
            points = found.points.get(i, ())
            computed = all(p.deleted or not p.precomputed for p in points)
            if points and computed and i not in found.differences:
                seen.offered.append(i)


def _digest(found: Look, document_id: str) -> bytes:
    """Return the digest of a document's points; if they are not proved equal, one that no points have."""
    proved = document_id not in found.differences
    return points_digest(found.points.get(document_id, ())) if proved else _UNPROVED


def _size(row: LegacyRow) -> int:
    content = row.content
    return _ROW_BYTES + sum(len(text) for text in content.text.values() if text) + len(content.embedding or b"")


def _paged(pairs: Sequence[tuple[str, bytes]], pages: Pages) -> Iterator[Sequence[tuple[str, bytes]]]:
    at = 0
    while at < len(pairs):
        yield pairs[at : (end := at + pages.limit)]
        at = end
