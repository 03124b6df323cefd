"""How the client waits while Kafka Connect is not ready. Each of these answers was given by a real Connect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from connectors.errors import ConnectError, ConnectUnreachable
from connectors.kafka import connect as connectors_api
from connectors.kafka.connect import ConnectClient

STARTING = (404, "text/html", "<html><body><h2>HTTP ERROR 404 Not Found</h2></body></html>")
MESSAGE = '{"error_code":%d,"message":"Request cannot be completed because a rebalance is expected"}'
REBALANCE = (409, "application/json", MESSAGE % 409)
REBALANCE_AS_FAILURE = (500, "application/json", MESSAGE % 500)
FAILURE = (500, "application/json", '{"error_code":500,"message":"Request timed out"}')
CONFIG = (200, "application/json", '{"name":"c","tasks.max":"1"}')

Answer = tuple[int, str, str]


@asynccontextmanager
async def client_of(answers: Sequence[Answer]) -> AsyncIterator[ConnectClient]:
    """Yield a client of a server that gives one answer after another, and then the last one forever."""
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
    ("answer", "expected"),
    [(STARTING, "not Kafka Connect"), (REBALANCE, "rebalance"), (REBALANCE_AS_FAILURE, "rebalance")],
)
async def test_what_does_not_end_is_reported_as_being_away(
    answer: Answer, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connectors_api, "_BUSY_BOUND_S", 0.2)
    async with client_of([answer]) as client:
        with pytest.raises(ConnectUnreachable, match=expected):
            await client.config("c")


async def test_another_failure_is_reported_at_once() -> None:
    async with client_of([FAILURE, CONFIG]) as client:
        with pytest.raises(ConnectError, match="refuses GET /connectors/c/config: Request timed out"):
            await client.config("c")


CONNECTOR = '{"name":"c","connector":{"state":"RUNNING","worker_id":"w"},"tasks":[{"id":0,"state":"RUNNING"}]}'
OFFSETS = '{"offsets":[{"partition":{"server":"p"},"offset":{"lsn":22407592,"ts_usec":1}}]}'
PREFIX = '{"topic.prefix":"p"}'
CALLS: dict[str, Callable[[ConnectClient], Awaitable[object]]] = {
    "names": lambda client: client.names(),
    "config": lambda client: client.config("c"),
    "put_config": lambda client: client.put_config("c", {}),
    "status": lambda client: client.status("c"),
    "wait_running": lambda client: client.wait_running("c", 1.0),
    "committed": lambda client: client.committed("c"),
    "offset": lambda client: client.offset("c"),
    "has_snapshot": lambda client: client.has_snapshot("c"),
}
OTHER_SHAPES = (
    "null",
    "7",
    '"text"',
    "[1]",
    "[[]]",
    '{"message":7}',
    '{"offsets":{}}',
    '{"offsets":[null]}',
    '{"offsets":[{"offset":{}}]}',
    '{"offsets":[{"partition":{"server":"p"},"offset":{"lsn":"0/16B3748"}}]}',
    '{"connector":[],"tasks":[]}',
    '{"connector":{"state":"RUNNING"}}',
    '{"connector":{"state":"RUNNING"},"tasks":[{"id":0}]}',
    '{"connector":{"state":"FAILED","trace":["a"]},"tasks":[]}',
    "[" * 5_000,
    "\xff",
)


@pytest.mark.parametrize("body", OTHER_SHAPES)
async def test_an_answer_of_another_shape_is_reported_as_not_being_kafka_connect(body: str) -> None:
    async with client_of([(200, "application/json", body)]) as client:
        for name, call in CALLS.items():
            with pytest.raises(ConnectUnreachable, match="not Kafka Connect"):
                pytest.fail(f"{name}: {await call(client)}")


async def test_what_kafka_connect_answers_is_read() -> None:
    answers = [(200, "application/json", body) for body in (CONNECTOR, '["b","a"]', OFFSETS, PREFIX)]
    async with client_of(answers) as client:
        assert (await client.status("c")).running
        assert await client.names() == ("a", "b")
        assert await client.committed("c") == {"lsn": 22407592, "ts_usec": 1}
