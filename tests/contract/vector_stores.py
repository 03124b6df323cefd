"""Opens each adapter of `VectorStore` for the contract suite, and makes the documents that it writes."""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path

import numpy as np
from qdrant_client import AsyncQdrantClient

from connectors.memory.vectors import MemoryVectorStore
from connectors.ports import SearchRequest
from connectors.qdrant.engine.client import HostedVectorStore, healthy
from connectors.qdrant.engine.files import socket_path
from connectors.qdrant.engine.store import EmbeddedVectorStore
from connectors.qdrant.server import ServerVectorStore
from connectors.vector_ports import VectorStore
from domain.points import DocumentPoints, chunks_of
from schemas.content import Scalar
from schemas.settings import Qdrant
from tests.gateways.over_grpc import grpc_gateway
from tests.gateways.over_rest import rest_gateway

SERVER_URL = os.environ.get("CROSSFADE_QDRANT_URL")
DIMENSION = 4


def vector(*values: float) -> bytes:
    return np.asarray(values, dtype="<f4").tobytes()


def document(
    name: str,
    version: int,
    vectors: Sequence[Sequence[float]] = ((1, 0, 0, 0),),
    tombstones: Sequence[int] = (),
    tenant: str = "default",
    metadata: dict[str, Scalar] | None = None,
) -> DocumentPoints:
    chunks = chunks_of(
        [f"{name} v{version} #{i}" for i in range(len(vectors))], [vector(*values) for values in vectors]
    )
    content_hash = f"hash of {name} v{version}" if chunks else None
    return DocumentPoints(name, version, tenant, content_hash, "m@1", metadata or {}, chunks, tuple(tombstones))


def question(
    *values: float, limit: int = 10, tenant: str = "default", wanted: dict[str, Scalar] | None = None
) -> SearchRequest:
    return SearchRequest("", vector(*values), tenant, limit, wanted or {})


async def start_host(home: Path) -> asyncio.subprocess.Process:
    """Start the engine's host and wait until it answers."""
    host = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "connectors.qdrant.engine.host", "--home", str(home), stderr=asyncio.subprocess.DEVNULL
    )
    while not await healthy(socket_path(home)):
        assert host.returncode is None
        await asyncio.sleep(0.02)
    return host


async def end(host: asyncio.subprocess.Process, number: signal.Signals = signal.SIGTERM) -> int:
    if host.returncode is None:
        host.send_signal(number)
    return await host.wait()


@cache
def shared_host() -> Path:
    """Start a host for the tests of this process, each of which has its own collection; return its home."""
    home = Path(tempfile.mkdtemp(prefix="crossfade-"))
    command = (sys.executable, "-m", "connectors.qdrant.engine.host", "--home", str(home))
    host = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def ended() -> None:
        host.terminate()
        host.wait()
        shutil.rmtree(home, ignore_errors=True)

    atexit.register(ended)
    return home


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[VectorStore]:
    """Open an empty store of the given kind."""
    home = Path(tempfile.mkdtemp(prefix="crossfade-"))
    gateway = AsyncExitStack()
    store: VectorStore
    if kind == "memory":
        store = MemoryVectorStore()
    elif kind == "embedded":
        embedded = EmbeddedVectorStore(home)
        await embedded.start()
        store = embedded
    elif kind == "hosted":
        socket = socket_path(shared_host())
        while not await healthy(socket):  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.02)
        store = HostedVectorStore(socket)
    elif kind == "local mode":
        store = ServerVectorStore(AsyncQdrantClient(":memory:"), local=True)
    elif kind == "grpc gateway":
        port = await gateway.enter_async_context(grpc_gateway())
        store = ServerVectorStore.connect(Qdrant(url="http://127.0.0.1", grpc_port=port))
    elif kind == "rest gateway":
        port = await gateway.enter_async_context(rest_gateway())
        store = ServerVectorStore.connect(Qdrant(url=f"http://127.0.0.1:{port}", prefer_grpc=False))
    else:
        store = ServerVectorStore.connect(Qdrant(url=SERVER_URL, prefer_grpc=kind == "server grpc"))
    try:
        yield store
    finally:
        await store.close()
        await gateway.aclose()
        shutil.rmtree(home)


async def delete(store: VectorStore, name: str) -> None:
    """Delete a collection behind crossfade's back."""
    if isinstance(store, MemoryVectorStore):
        del store._collections[name]
    elif isinstance(store, ServerVectorStore):
        await store._client.delete_collection(name)
    else:
        assert isinstance(store, EmbeddedVectorStore | HostedVectorStore)
        folder = store._folder if isinstance(store, EmbeddedVectorStore) else store._socket.parent / "qdrant"
        shutil.rmtree(folder / name)


SERVERS = ["server grpc", "server rest"] if SERVER_URL else []
KINDS = ["memory", "embedded", "hosted", "local mode", "grpc gateway", "rest gateway", *SERVERS]
