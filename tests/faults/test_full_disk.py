"""Qdrant's engine on a small tmpfs that fills up: nothing acknowledged is lost, and writes go on when there is room.

The tmpfs is in a mount namespace. If the kernel allows no user namespaces, the test is skipped with that reason. The
engine maps files into memory, so a full disk may end its host by SIGBUS. The namespace's shell starts it again, as an
init system does.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from connectors.errors import TransientError
from connectors.qdrant import healthy
from connectors.qdrant.engine.client import HostedVectorStore
from connectors.qdrant.engine.files import engine_folder, socket_path
from tests.contract.vector_stores import DIMENSION, document

SIZE_MIB, BALLAST_MIB = 192, 96
START_BOUND_S, WRITE_BOUND_S = 30.0, 60.0
_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
_IN_IT = """
mount -t tmpfs -o size="$2"m tmpfs "$1" && head -c "$3"M /dev/zero > "$1/ballast" || exit 3
shift 3
left=200
until "$@"; do
  left=$((left - 1))
  [ "$left" -gt 0 ] || exit 4
  sleep 0.3
done
"""


def allowed(folder: Path) -> bool:
    """Return whether this user may mount a tmpfs in a namespace."""
    if shutil.which("unshare") is None:
        return False
    command = [*_NAMESPACE, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    folder = engine_folder(tmp_path)
    folder.mkdir()
    if not await asyncio.to_thread(allowed, folder):
        pytest.skip("the kernel allows no tmpfs in a user namespace here: a full disk was not tried")
    serve = [sys.executable, "-m", "connectors.qdrant.engine.host", "--home", str(tmp_path)]
    sizes = [str(folder), str(SIZE_MIB), str(BALLAST_MIB)]
    process = await asyncio.create_subprocess_exec(
        *(*_NAMESPACE, "sh", "-c", _IN_IT, "sh", *sizes, *serve),
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(START_BOUND_S):
            while not await healthy(socket_path(tmp_path)):
                assert process.returncode is None, f"the host ended with {process.returncode}"
                await asyncio.sleep(0.05)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the shell and the host, which alone are in this session
        await process.wait()


async def test_nothing_acknowledged_is_lost_when_the_disk_is_full(
    tmp_path: Path, host: asyncio.subprocess.Process
) -> None:
    store = HostedVectorStore(socket_path(tmp_path))
    try:
        await store.prepare("c", DIMENSION)
        acknowledged = await _written_until_full(store)
        # The mounts of another namespace are accessible through one of its processes.
        ballast = Path(f"/proc/{host.pid}/root{engine_folder(tmp_path)}/ballast")
        await asyncio.to_thread(ballast.unlink)
        after = [f"after-{number}" for number in range(50)]
        await _eventually_written(store, after)
        stored = await store.stored("c", [*acknowledged, *after], content=True)
    finally:
        await store.close()
    assert [name for name in acknowledged if not stored.get(name)] == []
    assert [name for name in after if not stored.get(name)] == []
    assert all(point.version == 1 and point.vector for points in stored.values() for point in points)


async def _written_until_full(store: HostedVectorStore) -> list[str]:
    """Write until the engine refuses; return the documents that it acknowledged."""
    acknowledged: list[str] = []
    text = "x" * 8_000
    while len(acknowledged) < 200_000:
        names = [f"d{len(acknowledged) + number}-{text}" for number in range(200)]
        try:
            await store.write("c", [document(name, 1) for name in names])
        except TransientError:
            return acknowledged
        acknowledged += names
    raise AssertionError("the disk never became full")


async def _eventually_written(store: HostedVectorStore, names: list[str]) -> None:
    async with asyncio.timeout(WRITE_BOUND_S):
        while True:
            try:
                return await store.write("c", [document(name, 1) for name in names])
            except TransientError:
                await asyncio.sleep(0.2)
