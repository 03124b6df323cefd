"""Every error of Qdrant's drivers maps to an error of the ports, and no other error escapes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import httpx
import msgspec
import pytest
import qdrant_edge as edge
from grpc.aio import AioRpcError, Metadata  # type: ignore[import-untyped]  # grpcio ships no types
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from connectors.errors import (
    CollectionMissing,
    CrossfadeError,
    Misconfigured,
    PermanentError,
    Refused,
    StoreUnavailable,
    TransientError,
)
from connectors.qdrant import errors as server_errors
from connectors.qdrant.engine import errors as engine_errors
from connectors.qdrant.engine import wire
from connectors.qdrant.server import ServerVectorStore
from schemas.settings import Qdrant
from tests.contract.vector_stores import document, question


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_grpc_status_is_mapped_with_its_details(code: grpc.StatusCode) -> None:
    error = server_errors.driver_error(AioRpcError(code, Metadata(), Metadata(), "why it failed"), "searching c")
    assert type(error) is server_errors.GRPC_CODES[code]
    assert "searching c" in str(error)
    assert "why it failed" in str(error)


def test_a_grpc_time_out_and_a_wrong_argument_are_kept_apart() -> None:
    assert server_errors.GRPC_CODES[grpc.StatusCode.DEADLINE_EXCEEDED] is StoreUnavailable
    assert server_errors.GRPC_CODES[grpc.StatusCode.UNAVAILABLE] is StoreUnavailable
    assert server_errors.GRPC_CODES[grpc.StatusCode.INVALID_ARGUMENT] is Refused
    assert server_errors.GRPC_CODES[grpc.StatusCode.NOT_FOUND] is Misconfigured


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, Refused), (409, Refused), (413, Refused), (422, Refused), (404, Misconfigured),
        (401, StoreUnavailable), (403, StoreUnavailable),
        (408, StoreUnavailable), (429, StoreUnavailable), (500, TransientError),
        (502, StoreUnavailable), (503, StoreUnavailable), (504, StoreUnavailable), (507, StoreUnavailable),
    ],
)  # fmt: skip
def test_http_statuses_are_mapped(status: int, expected: type[CrossfadeError]) -> None:
    error = server_errors.driver_error(UnexpectedResponse(status, "", b"the reason", httpx.Headers()), "writing")
    assert type(error) is expected
    assert "the reason" in str(error)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ResponseHandlingException(httpx.ConnectError("refused")), StoreUnavailable),
        (ResponseHandlingException(httpx.ReadTimeout("late")), StoreUnavailable),
        (ResponseHandlingException(ValueError("not what was expected")), TransientError),
        (ResourceExhaustedResponse("slow down", 3), StoreUnavailable),
        (ResourceExhaustedResponse("write rate limit exceeded, request larger than rate limiter capacity", 3), Refused),
        (QdrantException("Retry-After header value is not a valid integer: Fri"), StoreUnavailable),
        (QdrantException("?"), TransientError),
        (ApiException("?"), TransientError),
        (AssertionError("Search returned None"), TransientError),
        (ConnectionRefusedError("refused"), StoreUnavailable),
        (TimeoutError(), StoreUnavailable),
        (RuntimeError("Client was closed"), StoreUnavailable),
        (ValueError("Collection c not found"), CollectionMissing),
        (ValueError("Wrong vector"), Refused),
    ],
)
def test_other_errors_of_the_client_are_mapped(raised: Exception, expected: type[CrossfadeError]) -> None:
    assert type(server_errors.driver_error(raised, "writing")) is expected


def test_a_mistake_of_our_own_is_not_hidden_as_an_error_of_the_store() -> None:
    with pytest.raises(KeyError), server_errors.mapped("writing"):
        raise KeyError("x")


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """A port that accepts connections and never answers."""
    ended = asyncio.Event()

    async def ignore(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    ended.set()
    server.close()


@pytest.mark.parametrize("prefer_grpc", [True, False])
async def test_a_server_that_is_not_there_is_unavailable(unused_tcp_port: int, prefer_grpc: bool) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    store = ServerVectorStore.connect(Qdrant(url=url, grpc_port=unused_tcp_port, prefer_grpc=prefer_grpc, timeout_s=2))
    for call in (
        store.prepare("c", 4),
        store.stored("c", ["a"]),
        store.write("c", [document("a", 1)]),
        store.search("c", question(1, 0, 0, 0)),
        store.scan_ids("c", None, 5),
        store.count("c"),
    ):
        with pytest.raises(StoreUnavailable):
            await call
    await store.close()


@pytest.mark.parametrize("prefer_grpc", [True, False])
async def test_a_server_that_never_answers_is_unavailable_after_the_time_limit(
    silent_port: int, prefer_grpc: bool
) -> None:
    url = f"http://127.0.0.1:{silent_port}"
    store = ServerVectorStore.connect(Qdrant(url=url, grpc_port=silent_port, prefer_grpc=prefer_grpc, timeout_s=1))
    with pytest.raises(StoreUnavailable):
        await store.count("c")
    await store.close()


@pytest.fixture
def engine(tmp_path: Path) -> edge.EdgeShard:
    params = edge.EdgeVectorParams(size=2, distance=edge.Distance.Cosine)
    return edge.EdgeShard.create(str(tmp_path / "shard"), edge.EdgeConfig(vectors={"dense": params}))


def upsert(engine: edge.EdgeShard, vectors: dict[str, list[float]], payload: dict[str, object]) -> None:
    point = edge.Point("4fede126-23ab-5ef4-a76e-4ecc8d366086", vectors, payload)  # type: ignore[arg-type] # dict is invariant
    engine.update(edge.UpdateOperation.upsert_points([point]))


def closed(engine: edge.EdgeShard) -> edge.EdgeShard:
    engine.close()
    return engine


def test_what_the_engine_really_raises_is_mapped(engine: edge.EdgeShard, tmp_path: Path) -> None:
    other = edge.EdgeConfig(vectors={"dense": edge.EdgeVectorParams(size=3, distance=edge.Distance.Cosine)})
    cases: list[tuple[Callable[[], object], type[CrossfadeError], str]] = [
        (lambda: upsert(engine, {"dense": [1.0]}, {}), Refused, "expected dim: 2"),
        (lambda: upsert(engine, {"other": [1.0, 0.0]}, {}), Refused, "other"),
        (lambda: upsert(engine, {"dense": [1.0, 0.0]}, {"x": {"y": float("nan")}}), Refused, ""),
        (lambda: edge.FieldCondition('metadata."a'), Refused, "JSON path"),
        (lambda: edge.EdgeShard.load(str(tmp_path / "absent")), Misconfigured, "does not exist"),
        (lambda: edge.EdgeShard.load(str(tmp_path / "shard")), StoreUnavailable, "WAL"),
        (lambda: closed(engine).info(), StoreUnavailable, "not initialized"),
        (lambda: edge.EdgeShard.load(str(tmp_path / "shard"), other), Misconfigured, "incompatible"),
    ]
    for call, expected, text in cases:
        with pytest.raises(CrossfadeError) as caught, engine_errors.mapped("testing"):
            call()
        assert type(caught.value) is expected
        assert "testing" in str(caught.value)
        assert text in str(caught.value)


class PanicException(BaseException):
    """Has the name and the base class of the exception that the engine's binding raises."""


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (Exception("Service runtime error: IO Error: No space left on device"), StoreUnavailable),
        (Exception("Service runtime error: Read-only file system (os error 30)"), StoreUnavailable),
        (Exception("Service runtime error: Too many open files (os error 24)"), StoreUnavailable),
        (Exception("Service runtime error: something new"), TransientError),
        (OSError("disk"), StoreUnavailable),
        (PanicException("index out of bounds"), TransientError),
        (Refused("ours"), Refused),
    ],
)
def test_what_the_engine_may_raise_is_mapped(raised: BaseException, expected: type[CrossfadeError]) -> None:
    with pytest.raises(CrossfadeError) as caught, engine_errors.mapped("testing"):
        raise raised
    assert type(caught.value) is expected


@pytest.mark.parametrize("ours", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_the_end_of_the_program_is_no_error_of_the_engine(ours: type[BaseException]) -> None:
    with pytest.raises(ours), engine_errors.mapped("testing"):
        raise ours


def every_error() -> list[type[CrossfadeError]]:
    found = [CrossfadeError]
    for kind in found:
        found += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == "connectors.errors"]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_of_the_tree_crosses_the_socket_as_itself(kind: type[CrossfadeError]) -> None:
    reply = wire.decode_reply(msgspec.msgpack.encode(wire.failure(7, kind("why"))))
    error = wire.error_of(reply)
    assert (reply.number, type(error), str(error)) == (7, kind, "why")


def test_an_unknown_error_crosses_the_socket_as_transient() -> None:
    error = wire.error_of(wire.decode_reply(msgspec.msgpack.encode(wire.failure(1, KeyError("x")))))
    assert type(error) is TransientError
    assert "KeyError" in str(error)
    assert not isinstance(error, PermanentError)
