"""A TCP proxy on loopback. A test can cut, reset, slow down or half-open its connections, or drop their answers.

It interprets only one thing that passes: a Kafka broker sends its clients the address on which it listens. The proxy
replaces the broker's port there with its own, so that no client bypasses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import Literal

HOST = "127.0.0.1"
CHUNK_BYTES = 64 * 1024
SLOW_S = 0.05
LONGEST_HANDSHAKE_S = 5.0
Mode = Literal["pass", "refuse", "slow", "swallow", "drop_answers"]
"""`refuse`: new connections are closed at once. `swallow`: bytes in both directions vanish, and nothing is closed
(half-open). `drop_answers`: requests arrive and take effect, but their answers vanish."""


@dataclass(eq=False)
class _Pair:
    """One connection: the client's end and the server's end."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    silent: bool = False

    def close(self, *, reset: bool) -> None:
        for end in (self.client, self.server):
            if reset:
                _reset(end)
            else:
                end.close()


class Proxy:
    """Forwards one port. It is healed if `mode == "pass"` and the connections of the fault are gone."""

    def __init__(self, target_port: int, *, kafka: bool = False) -> None:
        self._target_port = target_port
        self._kafka = kafka
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.mode: Mode = "pass"
        self.port = 0
        self.swallowed_bytes = 0
        self.ended_connections = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.end_connections(reset=False)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def end_connections(self, *, reset: bool) -> None:
        """Close every connection, by a TCP reset or in order."""
        for pair in list(self._pairs):
            pair.close(reset=reset)
            self.ended_connections += 1

    def silence(self) -> None:
        """Make the open connections half-open for good. New ones pass, so that a client can replace an old one."""
        for pair in self._pairs:
            pair.silent = True

    def heal(self, *, reset: bool = True) -> None:
        """Let everything pass. End all connections, because one that lost bytes cannot go on."""
        self.mode = "pass"
        self.end_connections(reset=reset)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.mode == "refuse":
                _reset(writer)
                return
            try:
                async with asyncio.timeout(LONGEST_HANDSHAKE_S):
                    server_reader, server = await asyncio.open_connection(HOST, self._target_port)
            except (OSError, TimeoutError):
                _reset(writer)  # as if no server were there
                return
            pair = _Pair(writer, server)
            self._pairs.add(pair)
            try:
                async with asyncio.TaskGroup() as ways:
                    ways.create_task(self._pump(reader, pair.server, pair, answers=False))
                    ways.create_task(self._pump(server_reader, pair.client, pair, answers=True))
            finally:
                self._pairs.discard(pair)
                pair.close(reset=False)
        finally:
            self._tasks.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: _Pair, *, answers: bool
    ) -> None:
        frames = self._kafka and answers
        with contextlib.suppress(OSError, EOFError):
            while data := await (_frame(reader) if frames else reader.read(CHUNK_BYTES)):
                if pair.silent or self.mode == "swallow" or (self.mode == "drop_answers" and answers):
                    self.swallowed_bytes += len(data)
                    continue
                if self.mode == "slow":
                    await asyncio.sleep(SLOW_S)
                writer.write(self._readdressed(data) if frames else data)
                await writer.drain()
        pair.close(reset=False)

    def _readdressed(self, frame: bytes) -> bytes:
        # In every answer that names a broker, the host is followed by the port in four bytes (Kafka's protocol guide:
        # Metadata, FindCoordinator, DescribeCluster), so lengths do not change.
        there, here = (HOST.encode() + struct.pack(">i", port) for port in (self._target_port, self.port))
        return frame.replace(there, here)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size, "big"))


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: bytes in flight are discarded on both sides."""
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
