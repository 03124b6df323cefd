"""The port `VectorStore` over the socket of the engine's host. No engine is opened here.

The client connects at the first call, and connects again after the connection was lost. A call in flight when the
connection is lost fails with StoreUnavailable, and may have been applied. Every write is guarded, so the caller can
repeat it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from connectors.batching import slices
from connectors.errors import Refused, StoreUnavailable, TransientError
from connectors.ports import SearchRequest
from connectors.qdrant.engine import wire
from connectors.qdrant.points import batch_of, check_metadata, payload_characters
from connectors.vector_ports import IN_MEMORY, NO_METADATA, IdPage, Storage
from domain.points import DocumentPoints, StoredChunk
from schemas.queries import Hit
from schemas.values import Kind

CONNECT_TIMEOUT_S = 1.0
HEALTH_TIMEOUT_S = 2.0
OPTIMISE_TIMEOUT_S = 3600.0
PREPARE_TIMEOUT_S = 300.0  # enough to index several columns of ten million points
CALLS_IN_FLIGHT = 64
WRITE_BYTES = 1024 * 1024  # the host works on one request while the next is being sent
CONTENT_IDS = 128


class HostedVectorStore:
    """Qdrant's engine in another process.

    `timeout_s` limits each call except `prepare`, `resume_indexing` and `optimise`, which have their own limits.
    """

    def __init__(self, socket: Path, timeout_s: float = 10.0) -> None:
        self._socket = socket
        self._timeout_s = timeout_s
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._slots = asyncio.Semaphore(CALLS_IN_FLIGHT)
        self._closed = False

    async def prepare(
        self,
        collection: str,
        dimension: int,
        metadata: Mapping[str, Kind] = NO_METADATA,
        storage: Storage = IN_MEMORY,
    ) -> None:
        """Create what is missing: the collection, and the indexes of its payload and metadata."""
        await self._call(wire.Prepare(collection, dimension, dict(metadata), storage), PREPARE_TIMEOUT_S)

    async def stored(
        self, collection: str, ids: Sequence[str], *, content: bool = False
    ) -> dict[str, list[StoredChunk]]:
        """Return all points, tombstones included, of the documents that have any."""
        step = CONTENT_IDS if content else max(1, len(ids))
        parts = [list(ids[start : start + step]) for start in range(0, len(ids), step)]
        found: dict[str, list[StoredChunk]] = {}
        for answer in await asyncio.gather(*(self._stored(collection, part, content) for part in parts)):
            found |= answer
        return found

    async def _stored(self, collection: str, ids: list[str], content: bool) -> dict[str, list[StoredChunk]]:
        try:
            answer: dict[str, list[StoredChunk]] = await self._call(wire.Stored(collection, ids, content))
        except Refused:
            if len(ids) == 1:
                raise
            # The answer may be too large for one frame, and half of it may fit.
            middle = len(ids) // 2
            answer = await self._stored(collection, ids[:middle], content)
            answer |= await self._stored(collection, ids[middle:], content)
        return answer

    async def write(self, collection: str, documents: Sequence[DocumentPoints]) -> None:
        """Write each document in one guarded operation, in requests of about one megabyte."""
        for part in _parts(documents):
            await self._call(wire.Write(collection, part))

    async def insert(self, collection: str, documents: Sequence[DocumentPoints]) -> None:
        """Insert the points that do not exist yet, in requests of about one megabyte."""
        for part in _parts(documents):
            for document in part:
                check_metadata(document)
            await self._call(wire.Insert(collection, batch_of(collection, part)))

    async def forget(self, collection: str, document_id: str, ids: bytes, above: int) -> None:
        """Remove those of the given points whose version is above `above`, and all other points of the document."""
        await self._call(wire.Forget(collection, document_id, ids, above))

    async def suspend_indexing(self, collection: str) -> int | None:
        """Do nothing. The host builds no index while points are inserted, nor in the half minute after."""
        return None

    async def resume_indexing(self, collection: str, previous_threshold: int | None) -> None:
        """Build the vector index."""
        await self._call(wire.EndBulk(collection), OPTIMISE_TIMEOUT_S)

    async def neighbours(self, collection: str, vector: bytes, limit: int, *, exact: bool) -> list[str]:
        """Return the ids of the nearest live points of all tenants."""
        ids: list[str] = await self._call(wire.Neighbours(collection, vector, limit, exact))
        return ids

    async def search(self, collection: str, request: SearchRequest) -> list[Hit]:
        """Return the nearest live chunks of the tenant, at most one per document."""
        return [Hit.model_validate(fields) for fields in await self._call(wire.Search(collection, request))]

    async def scan_ids(self, collection: str, after: str | None, limit: int) -> IdPage:
        """Return a page of point ids, in the order of the ids."""
        page: IdPage = await self._call(wire.ScanIds(collection, after, limit))
        return page

    async def points(self, collection: str, ids: bytes) -> dict[str, list[StoredChunk]]:
        """Return the points that have the packed ids, by document."""
        found: dict[str, list[StoredChunk]] = await self._call(wire.Points(collection, ids))
        return found

    async def count(self, collection: str) -> int:
        """Return the number of live points of all tenants."""
        number: int = await self._call(wire.Count(collection))
        return number

    async def optimise(self, collection: str) -> bool:
        """Build the vector index now. See `EmbeddedVectorStore.optimise`."""
        done: bool = await self._call(wire.Optimise(collection), OPTIMISE_TIMEOUT_S)
        return done

    async def ping(self) -> int:
        """Return the host's process id. Raises StoreUnavailable if the host does not answer."""
        number: int = await self._call(wire.Ping())
        return number

    async def close(self) -> None:
        """Close the connection. Calls in flight fail with StoreUnavailable. The host keeps what was written."""
        self._closed = True
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _call(self, request: wire.Request, timeout_s: float | None = None) -> Any:
        if self._closed:
            raise StoreUnavailable("the connection to Qdrant's engine is closed")
        limit_s = timeout_s or self._timeout_s
        try:
            async with asyncio.timeout(limit_s), self._slots:
                reply = await (await self._connected()).call(request)
        except TimeoutError:
            raise StoreUnavailable(f"Qdrant's engine did not answer on {self._socket} within {limit_s} s") from None
        if reply.error is not None:
            raise wire.error_of(reply)
        try:
            return msgspec.msgpack.decode(reply.answer, type=wire.ANSWERS[type(request)])
        except msgspec.DecodeError as error:
            raise TransientError(f"the engine's host answered something else: {error}") from error

    async def _connected(self) -> _Connection:
        async with self._connecting:
            if self._connection is None or self._connection.lost:
                self._connection = await _Connection.open(self._socket)
            return self._connection


class _Connection:
    """One connection. It sends calls, and hands each reply to the caller that waits for its number."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[wire.Reply]] = {}
        self._last = 0
        self.lost = False
        self._task = asyncio.create_task(self._read(), name="qdrant replies")

    @classmethod
    async def open(cls, socket: Path) -> _Connection:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(str(socket))
        except TimeoutError:
            raise StoreUnavailable(f"nobody accepts on {socket} within {CONNECT_TIMEOUT_S} s") from None
        except OSError as error:
            raise StoreUnavailable(
                f"Qdrant's engine does not run on {socket} ({error.strerror or error}); start it with `crossfade up`"
            ) from error
        return cls(reader, writer)

    async def call(self, request: wire.Request) -> wire.Reply:
        self._last += 1
        number = self._last
        data = wire.frame(wire.Call(number, request))
        waiting: asyncio.Future[wire.Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            if self.lost:
                raise StoreUnavailable("the connection to Qdrant's engine was lost")
            self._writer.write(data)
            await self._writer.drain()
            return await waiting
        except OSError as error:
            raise StoreUnavailable(f"the connection to Qdrant's engine was lost: {error}") from error
        finally:
            self._waiting.pop(number, None)
            if waiting.done() and not waiting.cancelled():
                waiting.exception()  # mark it as retrieved: nobody else will

    async def _read(self) -> None:
        reason = "the connection to Qdrant's engine was lost"
        try:
            while True:
                reply = wire.decode_reply(await wire.read_frame(self._reader))
                waiting = self._waiting.get(reply.number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)
        except (EOFError, OSError, msgspec.DecodeError) as error:
            reason = f"{reason}: {error or type(error).__name__}"
        finally:
            self.lost = True
            self._writer.close()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(StoreUnavailable(reason))

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def _parts(documents: Sequence[DocumentPoints]) -> list[list[DocumentPoints]]:
    sizes = (512 + sum(len(c.vector) for c in one.chunks) + 2 * payload_characters(one) for one in documents)
    return slices(documents, sizes, WRITE_BYTES)


async def healthy(socket: Path) -> bool:
    """Return whether the engine's host answers on the socket within 2 s."""
    store = HostedVectorStore(socket, HEALTH_TIMEOUT_S)
    try:
        await store.ping()
    except TransientError:
        return False
    finally:
        await store.close()
    return True
