"""One key range of a backfill: pages of rows become points, which are inserted and checked; then progress is stored.

A range continues after the last stored page. A page may be done twice: points are inserted only where none exist.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import stamina

from connectors.errors import TransientError
from connectors.failpoints import passing
from connectors.ports import Embedder
from domain.backfill import orphan_chunks
from domain.legacy import LegacyRow
from domain.points import DocumentPoints
from migration.backfill.documents import documents_of
from migration.collection import CollectionStores
from migration.coverage import passed_over
from schemas.tasks import RangeState

PAGE_BYTES = 8 * 1024 * 1024
PAGE_ROWS = 2_000
FIRST_ROWS = 64
ATTEMPTS = 8
_WAIT_MAX_S = 10.0
T = TypeVar("T")
Refresh = Callable[[Sequence[str]], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class BackfillPorts:
    """What a range is read from and written to; `refresh` hands documents over to the agents.

    Documents that Qdrant has no place for are handed over, too.
    """

    stores: CollectionStores
    embedder: Embedder
    refresh: Refresh


class RangeRun:
    """The work on one range. `turn` is awaited before each page, `keep` after it with the range's state."""

    def __init__(
        self,
        ports: BackfillPorts,
        state: RangeState,
        turn: Callable[[], Awaitable[None]],
        keep: Callable[[RangeState], Awaitable[None]],
    ) -> None:
        self._ports, self.state, self._turn, self._keep = ports, state, turn, keep
        self._page_rows = FIRST_ROWS
        self._resumed = state.at is not None
        self._read: set[str] = set()

    async def run(self) -> None:
        """Do the rest of the range. Raises the error of a store that does not come back within 8 attempts."""
        counted = await _retried(self._counted)
        while not self.state.done:
            await self._turn()
            after = await _retried(self._page)
            if after.done:
                after = after.model_copy(update={"unread": await _retried(partial(self._unread, after, counted))})
            self.state = after
            await self._keep(after)
            passing("backfill.after_save")

    async def _counted(self) -> int:
        return await self._ports.stores.bulk.count(self.state.after, self.state.upto)

    async def _unread(self, state: RangeState, counted: int) -> int:
        """Return how many rows the pages left out; check by reading again only if the numbers of rows do not match."""
        now = await self._counted()
        twice = not self._resumed and len(self._read) != state.rows
        if not twice and state.rows >= max(now, counted) and not (self._resumed and state.rows != now):
            return 0
        return await passed_over(self._ports.stores.bulk, state.after, state.upto)

    async def _page(self) -> RangeState:
        """Do the next page and return the range's state after it."""
        ports, state = self._ports, self.state
        after = state.after if state.at is None else state.at
        rows = await ports.stores.bulk.scan_range(after, state.upto, self._page_rows)
        passing("backfill.after_rows")
        if not rows:
            return state.model_copy(update={"done": True})
        again = self._read.issuperset(row.id for row in rows)
        documents = await self._written(rows)
        self._read.update(row.id for row in rows)
        last = len(rows) < self._page_rows or again
        self._page_rows = page_rows(rows)
        points = sum(len(document.chunks) for document in documents)
        return state.model_copy(
            update={
                "at": rows[-1].id,
                "done": last,
                "rows": state.rows + len(rows),
                "points": state.points + points,
                "handed_over": state.handed_over + len(rows) - len(documents),
            }
        )

    async def _written(self, rows: Sequence[LegacyRow]) -> list[DocumentPoints]:
        ports = self._ports
        made = await documents_of(
            rows,
            ports.embedder,
            given=ports.stores.description.embedding is not None,
            max_text_bytes=ports.stores.max_text_bytes,
        )
        await ports.stores.vectors.insert(ports.stores.name, made.documents)
        passing("backfill.after_insert")
        await self._look_after([document for document in made.documents if len(document.chunks) > 1])
        # What cannot be embedded here takes the path of every change: to the embedder, from there to the dead letters.
        await ports.refresh(list(made.failed))
        return made.documents

    async def _look_after(self, documents: Sequence[DocumentPoints]) -> None:
        """End orphan chunks: those that a live write, which came in between, has not ended."""
        if not documents:
            return
        stored = await self._ports.stores.vectors.stored(
            self._ports.stores.name, [document.id for document in documents]
        )
        ended = [orphan_chunks(document, stored.get(document.id, ())) for document in documents]
        await self._ports.stores.vectors.write(
            self._ports.stores.name, [document for document in ended if document is not None]
        )


async def _retried(call: Callable[[], Awaitable[T]]) -> T:
    async for attempt in stamina.retry_context(
        on=TransientError, attempts=ATTEMPTS, timeout=None, wait_max=_WAIT_MAX_S
    ):
        with attempt:
            return await call()
    raise AssertionError("retries end by a return or an error")


def page_rows(rows: Sequence[LegacyRow]) -> int:
    """Return how many rows like these make a page of some megabytes, so that rows of one megabyte fill no memory."""
    texts = sum(len(value) for row in rows for value in row.content.text.values() if value)
    size = 512 * len(rows) + 2 * texts + sum(len(row.content.embedding or b"") for row in rows)
    return max(1, min(PAGE_ROWS, PAGE_BYTES * len(rows) // size))
