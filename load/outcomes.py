"""A reader of the outcomes topic, like a consumer service. It reports when a document is in a store."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from connectors.kafka.offsets import end_offsets
from connectors.kafka.reader import read_topic
from schemas.cloudevents import InvalidEvent, decode
from schemas.documents import DocumentWritten, Store
from topics.catalogue import WRITTEN

WAIT_S = 300.0
Wanted = tuple[str, Store]


class Outcomes:
    """Futures for the first outcome of each document id in a store. Use every id for one change only."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._waiting: dict[Wanted, asyncio.Future[float]] = {}
        self._reader: asyncio.Task[None] | None = None
        self.failed = 0

    async def __aenter__(self) -> Outcomes:
        begin = (await end_offsets(self._bootstrap, [WRITTEN]))[WRITTEN]
        self._reader = asyncio.create_task(self._read(begin))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader

    def expect(self, document_id: str, store: Store) -> asyncio.Future[float]:
        """Return a future for the time (`time.perf_counter`) at which the outcome is received."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting[document_id, store] = future
        return future

    async def _read(self, begin: dict[int, int]) -> None:
        async for record in read_topic(self._bootstrap, WRITTEN, start=begin, until_end=False):
            with suppress(InvalidEvent):
                event, _ = decode(record, DocumentWritten)
                if event.store is None or event.outcome == "dead_lettered":
                    self.failed += 1
                    continue
                future = self._waiting.pop((event.id, event.store), None)
                if future is not None and not future.done():
                    future.set_result(time.perf_counter())
