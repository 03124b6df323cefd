"""The process that owns the embedded engine and serves `VectorStore` on a Unix socket. The store implements the calls.

`python -m connectors.qdrant.engine.host --home DIR --socket PATH` runs until SIGTERM or SIGINT, then flushes and
exits with 0. It exits with 1 if another host has the files or the socket.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket as sockets
import sys
from pathlib import Path

import msgspec
import uvloop

from connectors.errors import CrossfadeError, Misconfigured, StoreUnavailable
from connectors.gc_tuning import collect_rarely
from connectors.qdrant.engine import wire
from connectors.qdrant.engine.client import healthy
from connectors.qdrant.engine.files import socket_path
from connectors.qdrant.engine.store import EmbeddedVectorStore

log = logging.getLogger(__name__)

CALLS_A_CONNECTION = 64
CONNECTIONS = 64
DRAIN_S = 5.0

__all__ = ["EngineHost", "healthy", "main"]


class EngineHost:
    """A server of one embedded store, on a socket that only this user may open."""

    def __init__(self, home: Path, socket: Path) -> None:
        self._socket = socket
        self._store = EmbeddedVectorStore(home)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the files and listen. Raises StoreUnavailable if another process has the files or the socket."""
        await self._store.start()
        try:
            if self._socket.exists() or self._socket.is_symlink():
                if await healthy(self._socket):
                    raise StoreUnavailable(f"another host answers on {self._socket}")
                self._socket.unlink()  # left by a host that was killed
            listener = _listen(self._socket)
            self._server = await asyncio.start_unix_server(self._connected, sock=listener)
        except BaseException:
            await self._store.close()
            raise

    async def stop(self) -> None:
        """Accept no more calls, finish those in flight within 5 s, flush, and remove the socket."""
        if self._server is not None:
            self._server.close()
        if self._calls:
            await asyncio.wait(self._calls, timeout=DRAIN_S)
        for task in (*self._connections, *self._calls):
            task.cancel()
        await asyncio.gather(*self._connections, *self._calls, return_exceptions=True)
        await self._store.close()
        self._socket.unlink(missing_ok=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        slots = asyncio.Semaphore(CALLS_A_CONNECTION)
        try:
            while True:
                await slots.acquire()
                call = wire.decode_call(await wire.read_frame(reader))
                answering = asyncio.create_task(self._answer(call, writer, slots))
                self._calls.add(answering)
                answering.add_done_callback(self._calls.discard)
        except (EOFError, OSError):
            pass  # the client disconnected
        except msgspec.DecodeError as error:
            log.warning("a client sent something that is no call: %s", error)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, call: wire.Call, writer: asyncio.StreamWriter, slots: asyncio.Semaphore) -> None:
        try:
            try:
                data = wire.frame(wire.Reply(call.number, await self._do(call.request)))
            except CrossfadeError as error:
                data = wire.frame(wire.failure(call.number, error))
            except Exception as error:
                log.exception("a call failed")
                data = wire.frame(wire.failure(call.number, error))
            with contextlib.suppress(OSError):
                writer.write(data)
                await writer.drain()
        finally:
            slots.release()

    async def _do(self, request: wire.Request) -> msgspec.Raw:
        store = self._store
        answer: object = None
        match request:
            case wire.Write():
                await store.write(request.collection, request.documents)
            case wire.Insert():
                await store.insert_points(request.collection, request.points)
            case wire.Forget():
                await store.forget(request.collection, request.document_id, request.ids, request.above)
            case wire.Prepare():
                await store.prepare(request.collection, request.dimension, request.metadata, request.storage)
            case wire.EndBulk():
                await store.resume_indexing(request.collection, None)
            case wire.Optimise():
                answer = await store.optimise(request.collection)
            case wire.Ping():
                answer = os.getpid()
            case _:
                answer = await self._read(request)
        return msgspec.Raw(wire.encode(answer))

    async def _read(self, request: wire.Read) -> object:
        store = self._store
        answer: object = None
        match request:
            case wire.Search():
                answer = [hit.model_dump() for hit in await store.search(request.collection, request.request)]
            case wire.Stored():
                answer = await store.stored(request.collection, request.ids, content=request.content)
            case wire.ScanIds():
                answer = await store.scan_ids(request.collection, request.after, request.limit)
            case wire.Points():
                answer = await store.points(request.collection, request.ids)
            case wire.Count():
                answer = await store.count(request.collection)
            case wire.Neighbours():
                answer = await store.neighbours(request.collection, request.vector, request.limit, exact=request.exact)
        return answer


def _listen(path: Path) -> sockets.socket:
    """Return a bound socket, which has mode 0600 from its creation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise Misconfigured(f"cannot listen on {path}: {error}") from error
    finally:
        os.umask(before)
    return listener


async def _serve(home: Path, socket: Path) -> None:
    host = EngineHost(home, socket)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await host.start()
    collect_rarely()
    log.info("Qdrant's engine in %s listens on %s", home, socket)
    try:
        await ended.wait()
    finally:
        await host.stop()


def main() -> int:
    """Run the host until a signal arrives. Return the exit code."""
    parser = argparse.ArgumentParser(
        prog="connectors.qdrant.engine.host", description="Hosts Qdrant's engine on a socket."
    )
    parser.add_argument("--home", type=Path, required=True, help="data folder; the collections are in its qdrant/")
    parser.add_argument("--socket", type=Path, help="where to listen (default: HOME/qdrant.sock)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(arguments.home, arguments.socket or socket_path(arguments.home)))
    except CrossfadeError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
