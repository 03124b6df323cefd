"""Two ways to an engine: documents wait in a bounded queue and are computed in batches; questions bypass the queue.

Everything here runs on one event loop; engines compute on threads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from connectors.embedding.engine import Engine
from connectors.embedding.model import to_bytes
from connectors.errors import EmbeddingFailed, EmbeddingUnavailable

# Two batches at once: while one is assembled or finishing, the other keeps the engine's threads busy.
_BATCHES_AT_ONCE = 2
_CLOSED = "the embedding engine is closed"


@dataclass(frozen=True, slots=True)
class _Waiting:
    text: str
    vector: asyncio.Future[bytes]


class DocumentLane:
    """Batches of up to `batch_size` texts from any callers. At most `queue_limit` texts wait; then callers block."""

    def __init__(self, engine: Engine, batch_size: int, queue_limit: int, timeout_s: float) -> None:
        self._engine = engine
        self._batch_size = batch_size
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(queue_limit)
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._closed = False
        self._threads = ThreadPoolExecutor(_BATCHES_AT_ONCE, thread_name_prefix="embed-batch")
        self._dispatchers = [asyncio.create_task(self._dispatch()) for _ in range(_BATCHES_AT_ONCE)]

    @property
    def depth(self) -> int:
        """The number of texts that wait and are not being computed."""
        return len(self._queue)

    async def embed(self, texts: Sequence[str], progress: Callable[[], None] = lambda: None) -> list[bytes]:
        """Return the vector of each text. Raises EmbeddingFailed when one has none, EmbeddingUnavailable.

        `progress` is called as each vector arrives. Cancelling a caller also removes its waiting texts.
        """
        vectors: list[asyncio.Future[bytes]] = []
        try:
            for text in texts:
                vectors.append(await self._enter(text))
                vectors[-1].add_done_callback(lambda done: None if done.cancelled() else progress())
            found = [await self._bounded(vector) for vector in vectors]
            await asyncio.sleep(0)  # vectors of one batch: `progress` is called for all before this returns
            return found
        finally:
            for vector in vectors:
                # The first failure is raised. Reading the others keeps asyncio from logging them as never retrieved.
                if not vector.cancel() and not vector.cancelled():
                    vector.exception()

    async def close(self) -> None:
        """Finish the batches in the engine and refuse the waiting texts."""
        self._closed = True
        while self._queue:
            self._refuse(self._queue.popleft())
        self._arrived.set()
        await asyncio.gather(*self._dispatchers)
        self._threads.shutdown(wait=True)

    async def _enter(self, text: str) -> asyncio.Future[bytes]:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._slots.acquire()
        except TimeoutError as error:
            raise EmbeddingUnavailable(f"the embedding queue was full for {self._timeout_s:g} s") from error
        if self._closed:
            # Wake the next caller that waits for a slot, to find the lane closed as well.
            self._slots.release()
            raise EmbeddingUnavailable(_CLOSED)
        waiting = _Waiting(text, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._arrived.set()
        return waiting.vector

    async def _bounded(self, vector: asyncio.Future[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await vector
        except TimeoutError as error:
            raise EmbeddingUnavailable(f"no vector came for {self._timeout_s:g} s") from error

    async def _dispatch(self) -> None:
        while True:
            await self._arrived.wait()
            batch = self._take()
            if batch:
                await self._compute(batch)
            elif self._closed:
                return
            elif not self._queue:
                self._arrived.clear()

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self._batch_size:
            waiting = self._queue.popleft()
            self._slots.release()
            if not waiting.vector.done():
                batch.append(waiting)
        return batch

    async def _compute(self, batch: Sequence[_Waiting]) -> None:
        try:
            texts = [waiting.text for waiting in batch]
            vectors = await asyncio.get_running_loop().run_in_executor(self._threads, self._vectors, texts)
        except EmbeddingFailed as error:
            if len(batch) == 1:
                _fail(batch[0], error)
                return
            # One text fails its whole batch, and the other texts belong to other callers: find the one.
            for waiting in batch:
                await self._compute([waiting])
        except EmbeddingUnavailable as error:
            for waiting in batch:
                _fail(waiting, error)
        except Exception as error:  # any error: a lane that ends would leave its callers waiting
            for waiting in batch:
                _fail(waiting, EmbeddingUnavailable(f"the embedding engine failed: {error!r}"))
        else:
            for waiting, vector in zip(batch, vectors, strict=True):
                if not waiting.vector.done():
                    waiting.vector.set_result(vector)

    def _vectors(self, texts: Sequence[str]) -> list[bytes]:
        return to_bytes(self._engine.embed(texts))

    def _refuse(self, waiting: _Waiting) -> None:
        self._slots.release()
        _fail(waiting, EmbeddingUnavailable(_CLOSED))


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.vector.done():
        # One exception object for each caller: raising the same one twice would mix their tracebacks.
        own = type(error)(*error.args)
        own.__cause__ = error.__cause__
        waiting.vector.set_exception(own)


class QueryLane:
    """Computes single questions on its own threads. At most `limit` are computed or wait."""

    def __init__(self, vector_of: Callable[[str], bytes], threads: int, limit: int, timeout_s: float) -> None:
        self._vector_of = vector_of
        self._limit = limit
        self._timeout_s = timeout_s
        self._running = 0
        self._closed = False
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="embed-query")

    async def embed(self, text: str) -> bytes:
        """Return the vector. Raises EmbeddingFailed, EmbeddingUnavailable (closed, too many questions, timeout)."""
        if self._closed:
            raise EmbeddingUnavailable(_CLOSED)
        if self._running >= self._limit:
            raise EmbeddingUnavailable(f"{self._limit} questions wait for their vectors already")
        self._running += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._vector_of, text)
        except TimeoutError as error:
            raise EmbeddingUnavailable(f"no vector of a question came for {self._timeout_s:g} s") from error
        finally:
            self._running -= 1

    async def close(self) -> None:
        """Finish the questions that are being computed."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown, wait=True)
