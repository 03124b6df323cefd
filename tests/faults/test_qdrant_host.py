"""The process that hosts Qdrant's engine: killed, started again, started twice, sent malformed requests."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from connectors.errors import Refused, StoreUnavailable
from connectors.qdrant import healthy, open_vector_store
from connectors.qdrant.engine import wire
from connectors.qdrant.engine.client import HostedVectorStore
from connectors.qdrant.engine.files import socket_path
from connectors.qdrant.engine.host import EngineHost
from connectors.qdrant.server import ServerVectorStore
from schemas.settings import Qdrant
from tests.contract.vector_stores import DIMENSION, document, end, question, start_host


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[HostedVectorStore]:
    opened = HostedVectorStore(socket_path(tmp_path))
    yield opened
    await opened.close()


async def test_every_acknowledged_write_survives_a_kill_in_the_middle(tmp_path: Path, store: HostedVectorStore) -> None:
    host = await start_host(tmp_path)
    await store.prepare("c", DIMENSION)
    acknowledged = 0
    enough = asyncio.Event()

    async def write_until_it_breaks() -> None:
        nonlocal acknowledged
        while True:
            await store.write("c", [document(f"d{acknowledged}.{i}", 1, [(1, i, 0, 0)] * 2) for i in range(20)])
            acknowledged += 1
            if acknowledged == 20:
                enough.set()

    writing = asyncio.create_task(write_until_it_breaks())
    await enough.wait()
    assert await end(host, signal.SIGKILL) == -signal.SIGKILL
    with pytest.raises(StoreUnavailable):
        await writing
    with pytest.raises(StoreUnavailable, match="crossfade up"):
        await store.count("c")
    host = await start_host(tmp_path)  # the socket that the killed host left is no obstacle
    names = [f"d{part}.{i}" for part in range(acknowledged) for i in range(20)]
    stored = await store.stored("c", names, content=True)  # the client connects again by itself
    assert {len(stored.get(name, [])) for name in names} == {2}
    assert all(chunk.vector is not None and chunk.version == 1 for chunks in stored.values() for chunk in chunks)
    assert (await store.search("c", question(1, 0, 0, 0, limit=3)))[0].score == pytest.approx(1, abs=1e-5)
    await store.write("c", [document("d0.0", 2)])
    assert await end(host) == 0


async def test_a_call_under_way_when_the_host_dies_fails_and_does_not_hang(
    tmp_path: Path, store: HostedVectorStore
) -> None:
    host = await start_host(tmp_path)
    await store.ping()
    host.send_signal(signal.SIGSTOP)
    calls = [asyncio.create_task(store.ping()) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert not any(call.done() for call in calls)
    await end(host, signal.SIGKILL)
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 3
    assert all("was lost" in str(result) for result in results)  # reported at once, not after the time limit


async def test_a_host_that_does_not_answer_is_unavailable_after_the_time_limit(tmp_path: Path) -> None:
    host = await start_host(tmp_path)
    store = HostedVectorStore(socket_path(tmp_path), timeout_s=0.2)
    await store.ping()
    host.send_signal(signal.SIGSTOP)
    with pytest.raises(StoreUnavailable, match=r"within 0\.2 s"):
        await store.ping()
    assert not await healthy(socket_path(tmp_path))
    host.send_signal(signal.SIGCONT)
    assert await healthy(socket_path(tmp_path))
    assert await store.ping() == host.pid  # a late answer is not taken for another call's
    await store.close()
    await end(host)


async def test_a_second_host_refuses_and_names_the_first(tmp_path: Path, store: HostedVectorStore) -> None:
    host = await start_host(tmp_path)
    for socket in (socket_path(tmp_path), tmp_path / "other.sock"):
        second = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "connectors.qdrant.engine.host", "--home", str(tmp_path), "--socket", str(socket),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, errors = await second.communicate()
        assert second.returncode == 1
        assert f"process {host.pid}" in errors.decode()
        assert "Traceback" not in errors.decode()
    assert await store.ping() == host.pid
    await end(host)


async def test_a_host_with_other_files_does_not_take_over_a_living_socket(tmp_path: Path) -> None:
    first = EngineHost(tmp_path / "one", tmp_path / "s")
    await first.start()
    with pytest.raises(StoreUnavailable, match="another host answers"):
        await EngineHost(tmp_path / "two", tmp_path / "s").start()
    assert await healthy(tmp_path / "s")
    await first.stop()


async def test_a_clean_end_flushes_and_removes_the_socket_that_only_its_owner_may_open(
    tmp_path: Path, store: HostedVectorStore
) -> None:
    host = await start_host(tmp_path)
    assert stat.S_IMODE(socket_path(tmp_path).stat().st_mode) == 0o600
    await store.prepare("c", DIMENSION)
    await store.write("c", [document("a", 1)])
    assert await end(host) == 0
    assert not socket_path(tmp_path).exists()
    assert not await healthy(socket_path(tmp_path))
    host = await start_host(tmp_path)
    assert await store.count("c") == 1
    await end(host)


@pytest.mark.parametrize(
    "sent", [b"\xff\xff\xff\xff", (3).to_bytes(4, "little") + b"abc", (100).to_bytes(4, "little") + b"half"]
)
async def test_a_client_that_speaks_wrongly_harms_nobody_else(tmp_path: Path, sent: bytes) -> None:
    host = EngineHost(tmp_path, tmp_path / "s")
    await host.start()
    store = HostedVectorStore(tmp_path / "s")
    await store.ping()
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
    writer.write(sent)
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await store.ping()
    await store.close()
    await host.stop()


async def test_many_calls_at_once_get_each_its_own_answer(tmp_path: Path) -> None:
    host = EngineHost(tmp_path, tmp_path / "s")
    await host.start()
    store = HostedVectorStore(tmp_path / "s")
    await store.prepare("c", DIMENSION)
    await asyncio.gather(*(store.write("c", [document(f"d{i}", i + 1)]) for i in range(300)))
    answers = await asyncio.gather(*(store.stored("c", [f"d{i}"]) for i in range(300)))
    assert [answer[f"d{i}"][0].version for i, answer in enumerate(answers)] == [i + 1 for i in range(300)]
    await store.close()
    await host.stop()


async def test_an_answer_too_large_for_a_frame_comes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = EngineHost(tmp_path, tmp_path / "s")
    await host.start()
    store = HostedVectorStore(tmp_path / "s")
    await store.prepare("c", DIMENSION)
    await store.write("c", [document(f"d{i}", 1, [(1, 0, 0, 0)] * 5) for i in range(40)])
    monkeypatch.setattr(wire, "MAX_FRAME_BYTES", 4000)
    stored = await store.stored("c", [f"d{i}" for i in range(40)], content=True)
    assert [len(stored[f"d{i}"]) for i in range(40)] == [5] * 40
    with pytest.raises(Refused, match="4000"):
        await store.write("c", [document("large", 1, [(1, 0, 0, 0)] * 200)])
    await store.write("c", [document("small", 1)])
    await store.close()
    await host.stop()


async def test_a_closed_client_is_unavailable(tmp_path: Path, store: HostedVectorStore) -> None:
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.ping()


async def test_a_home_with_a_long_path_is_served_too(tmp_path: Path) -> None:
    home = tmp_path / ("h" * 100)
    host = await start_host(home)
    store = await open_vector_store(Qdrant(), home)
    await store.prepare("c", DIMENSION)
    assert await store.count("c") == 0
    await store.close()
    assert await end(host) == 0


async def test_the_configuration_chooses_server_or_host(tmp_path: Path) -> None:
    server = await open_vector_store(Qdrant(url="http://127.0.0.1:1"), tmp_path)
    assert isinstance(server, ServerVectorStore)
    hosted = await open_vector_store(Qdrant(), tmp_path)
    assert isinstance(hosted, HostedVectorStore)
    with contextlib.suppress(StoreUnavailable):
        await server.close()
    await hosted.close()
