"""Errors of a Qdrant server: if it cannot serve now, the caller waits. An error about one request affects only that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest

from connectors.errors import CrossfadeError, Refused, StoreUnavailable, TransientError
from connectors.qdrant.server import ServerVectorStore
from schemas.settings import Qdrant
from tests.contract.vector_stores import document

S = grpc.StatusCode
NO_REPLICA = "Service internal error: The replica set for shard 0 on peer 6358 does not have enough active replicas"
# gRPC status, HTTP status, the server's message, the seconds it asks to wait, and the error that crossfade raises.
CASES: list[tuple[Any, int, str, int, type[CrossfadeError]]] = [
    (S.INTERNAL, 500, NO_REPLICA, 0, StoreUnavailable),
    (S.INTERNAL, 500, "Service internal error: No active replica found for shard 2", 0, StoreUnavailable),
    (S.INTERNAL, 500, "1 of 1 update operations failed: no healthy replicas", 0, StoreUnavailable),
    (S.INTERNAL, 500, "No space left on device: WAL buffer size exceeds available disk space", 0, StoreUnavailable),
    (S.INTERNAL, 500, "Out of memory, free: 12, needed: 90", 0, StoreUnavailable),
    (S.INTERNAL, 500, "Error in Raft consensus: no leader", 0, StoreUnavailable),
    (S.INTERNAL, 500, "Tonic transport error: broken pipe", 0, StoreUnavailable),
    (S.FAILED_PRECONDITION, 403, "Storage locked: Write operation is not allowed: maintenance", 0, StoreUnavailable),
    (S.FAILED_PRECONDITION, 412, "Pre-condition failure: The shard is recovering, 3 replicas", 0, StoreUnavailable),
    (S.UNAVAILABLE, 503, "Shard temporarily unavailable: 1", 0, StoreUnavailable),
    (S.DEADLINE_EXCEEDED, 408, "Timeout: Operation 'Update' timed out after 5s", 0, StoreUnavailable),
    (S.RESOURCE_EXHAUSTED, 429, "Rate limiting exceeded: Write rate limit exceeded", 7, StoreUnavailable),
    (S.RESOURCE_EXHAUSTED, 429, "Rate limiting exceeded: Write rate limit exceeded", 0, StoreUnavailable),
    (S.RESOURCE_EXHAUSTED, 429, "write rate limit exceeded, request larger than rate limiter capacity", 0, Refused),
    (S.UNAUTHENTICATED, 401, "Must provide an API key or an Authorization bearer token", 0, StoreUnavailable),
    (S.PERMISSION_DENIED, 403, "Forbidden: Global access is required", 0, StoreUnavailable),
    (S.INVALID_ARGUMENT, 400, "Wrong input: Vector dimension error: expected dim: 4, got 3", 0, Refused),
    (S.OUT_OF_RANGE, 413, "Error, message length too large", 0, Refused),
    (S.INTERNAL, 500, "index out of bounds: the len is 3 but the index is 7", 0, TransientError),
]


@asynccontextmanager
async def grpc_that_says(code: Any, text: str, retry_after_s: int) -> AsyncIterator[int]:
    class Says(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio ships no types
        def service(self, _: Any) -> Any:
            async def abort(_: bytes, context: Any) -> bytes:
                sent = (("retry-after", str(retry_after_s)),) if retry_after_s else ()
                await context.abort(code, text, sent)
                return b""

            return grpc.unary_unary_rpc_method_handler(abort)

    server = grpc.aio.server(handlers=[Says()])
    port: int = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@asynccontextmanager
async def http_that_says(status: int, text: str, retry_after_s: int) -> AsyncIterator[int]:
    body = json.dumps({"status": {"error": text}, "time": 0.0}).encode()
    retry = f"Retry-After: {retry_after_s}\r\n" if retry_after_s else ""
    head = f"HTTP/1.1 {status} No\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{retry}\r\n"

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line == b"\r\n":
                break
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("prefer_grpc", [True, False], ids=["grpc", "rest"])
@pytest.mark.parametrize(("code", "status", "text", "retry_after_s", "expected"), CASES, ids=[c[2][:40] for c in CASES])
async def test_a_server_that_cannot_serve_now_is_waited_for_and_its_seconds_are_kept(
    code: Any, status: int, text: str, retry_after_s: int, expected: type[CrossfadeError], prefer_grpc: bool
) -> None:
    says = grpc_that_says(code, text, retry_after_s) if prefer_grpc else http_that_says(status, text, retry_after_s)
    async with says as port:
        settings = Qdrant(url=f"http://127.0.0.1:{port}", grpc_port=port, prefer_grpc=prefer_grpc, timeout_s=5)
        store = ServerVectorStore.connect(settings)
        try:
            for call in (store.write("c", [document("a", 1)]), store.stored("c", ["a"]), store.count("c")):
                with pytest.raises(CrossfadeError) as caught:
                    await call
                assert type(caught.value) is expected
                if isinstance(caught.value, StoreUnavailable):
                    assert caught.value.retry_after_s == retry_after_s
        finally:
            await store.close()
