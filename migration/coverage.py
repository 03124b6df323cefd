"""Checks that rows read by ranges and pages are all rows of the table. The database's key order is not trusted."""

from __future__ import annotations

from connectors.ports import BulkTable
from domain.legacy import Coverage
from schemas.keys import UNUSABLE_ID

# Many short pages: a wrong order shows where one page ends and the next begins.
_PAGE, _PAGES = 20, 10
_TRIES = 3
LIES = "the database does not order the key as it compares it; run crossfade config check"


async def passed_over(bulk: BulkTable, after: str | None, upto: str | None) -> int:
    """Return how many rows of a range are missed by reading it page by page.

    A missed row is one that exists both before and after the reading. A row that is deleted and inserted again in the
    meantime could be counted, but this does not happen three times.
    """
    left = 0
    for _ in range(_TRIES):
        before = set(await bulk.ids(after, upto))
        missing = before - await _read(bulk, after, upto, max(1, min(_PAGE, len(before) // _PAGES)))
        left = len(missing.intersection(await bulk.ids(after, upto))) if missing else 0
        if not left:
            break
    return left


async def _read(bulk: BulkTable, after: str | None, upto: str | None, page: int) -> set[str]:
    found: set[str] = set()
    more = True
    while more:
        rows = await bulk.scan_range(after, upto, page)
        fresh = {row.id for row in rows} - found
        found |= fresh
        more = bool(fresh) and len(rows) == page and rows[-1].id != upto
        after = rows[-1].id if rows else after
    return found


def gaps(found: Coverage) -> list[tuple[str, str]]:
    """Return which rows of the table the ranges leave out or read twice, each with the reason."""
    left_out: list[tuple[str, str]] = []
    if found.without_id:
        left_out.append((f"rows whose key makes no document: {found.without_id}", UNUSABLE_ID))
    if found.outside > 0:
        left_out.append((f"rows of the table that were read by no range: {found.outside}", LIES))
    if found.outside < 0:
        left_out.append((f"rows of the table that were read by more than one range: {-found.outside}", LIES))
    return left_out
