"""A worker ends by itself if its agents cannot continue, so that its supervisor starts it again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import agents.worker
from agents.runner import RoleHealth
from agents.worker import Worker
from migration.epochs import Epochs
from migration.opener import Opened
from schemas.settings import Settings
from tests.unit.agents.parts import World


class FakeApp:
    """A substitute for a Faust application, which would need a broker to start."""

    def __init__(self) -> None:
        self.conf = SimpleNamespace(id="crossfade-intake")
        self.crashed = self.stopped = False

    def finalize(self) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(agents.worker, "END_POLL_S", 0.0)
    world = World()
    nothing: Any = None
    opened = Opened(Settings(collections={}), nothing, world.vectors, {}, Epochs(), AsyncExitStack())
    made = Worker(opened, (), tmp_path, world.ctx.telemetry)
    made._apps.append(FakeApp())
    made._runners.append(SimpleNamespace(role="intake", health=RoleHealth("intake")))  # type: ignore[arg-type]  # only its health is read
    return made


async def run(worker: Worker, stop: asyncio.Event) -> tuple[asyncio.Task[bool], int]:
    ports: asyncio.Queue[int] = asyncio.Queue()
    task = asyncio.create_task(worker.run(stop, ports.put_nowait))
    return task, await ports.get()


async def test_a_worker_that_is_told_to_stop_ends_well_with_its_agents_stopped(worker: Worker) -> None:
    stop = asyncio.Event()
    task, port = await run(worker, stop)
    assert port == worker.port > 0
    assert not task.done()
    stop.set()
    assert await task is True
    assert worker._apps[0].stopped


async def test_a_worker_ends_where_an_agent_ended_by_an_error(worker: Worker) -> None:
    task, _ = await run(worker, asyncio.Event())
    worker._runners[0].health.ended_by = "Refused: the dead letter is too large"
    assert await task is False
    assert worker._apps[0].stopped


async def test_a_worker_ends_where_what_runs_under_an_agent_crashed(worker: Worker) -> None:
    task, _ = await run(worker, asyncio.Event())
    worker._apps[0].crashed = True
    assert await task is False
