"""How the client waits out what Kafka Connect answers while it is not ready, each answer as a real one gave it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from operations import connectors_api
from operations.connectors_api import ConnectClient, ConnectUnreachable
from operations.errors import CommandError

STARTING = (404, "text/html", "<html><body><h2>HTTP ERROR 404 Not Found</h2></body></html>")
MESSAGE = '{"error_code":%d,"message":"Request cannot be completed because a rebalance is expected"}'
REBALANCE = (409, "application/json", MESSAGE % 409)
REBALANCE_AS_FAILURE = (500, "application/json", MESSAGE % 500)
FAILURE = (500, "application/json", '{"error_code":500,"message":"Request timed out"}')
CONFIG = (200, "application/json", '{"name":"c","tasks.max":"1"}')

Answer = tuple[int, str, str]


@asynccontextmanager
async def client_of(answers: Sequence[Answer]) -> AsyncIterator[ConnectClient]:
    """Give a client of a server that gives one answer after another, the last of them for ever."""
    left = list(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status, kind, body = left.pop(0) if len(left) > 1 else left[0]
        head = (f"HTTP/1.1 {status} .", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close")
        writer.write("\r\n".join((*head, "", body)).encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with ConnectClient(f"http://127.0.0.1:{port}") as client:
            yield client
    finally:
        server.close()


async def test_it_waits_while_connect_starts_and_while_its_workers_are_given_their_work() -> None:
    async with client_of([STARTING, REBALANCE, REBALANCE_AS_FAILURE, REBALANCE_AS_FAILURE, CONFIG]) as client:
        assert await client.config("c") == {"name": "c", "tasks.max": "1"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [(STARTING, "not Kafka Connect"), (REBALANCE, "rebalance"), (REBALANCE_AS_FAILURE, "rebalance")],
)
async def test_what_does_not_end_is_told_as_being_away(
    answer: Answer, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connectors_api, "_BUSY_BOUND_S", 0.2)
    async with client_of([answer]) as client:
        with pytest.raises(ConnectUnreachable, match=said):
            await client.config("c")


async def test_another_failure_is_told_at_once() -> None:
    async with client_of([FAILURE, CONFIG]) as client:
        with pytest.raises(CommandError, match="refuses GET /connectors/c/config: Request timed out"):
            await client.config("c")
