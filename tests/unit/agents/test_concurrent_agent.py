"""Records handled concurrently are acknowledged in order. If one raises, all of them end, and no task is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from agents.batch import Batch, Failures
from agents.faust_apps import Bounds, add_concurrent_agent
from agents.runner import Retry, Runner
from connectors.errors import Refused
from tests.unit.agents.parts import World
from tests.unit.agents.streams import FakeMessage, FakeStream
from topics.catalogue import ASKED, dead_letter_topic

LIMIT = 3


class Desk:
    """A handler whose records each wait for their own permission. It keeps which were begun, ended and cancelled."""

    def __init__(self) -> None:
        self.may: dict[int, asyncio.Event] = {}
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.cancelled: list[int] = []

    def allow(self, *offsets: int) -> None:
        for offset in offsets:
            self.may.setdefault(offset, asyncio.Event()).set()

    async def __call__(self, batch: Batch) -> Failures:
        (message,) = batch
        offset = message.record.offset
        self.begun.append(offset)
        try:
            await self.may.setdefault(offset, asyncio.Event()).wait()
        except asyncio.CancelledError:
            self.cancelled.append(offset)
            raise
        if message.record.value == b"bad":
            raise Refused("no")
        self.ended.append(offset)
        return []


def runner_of(desk: Desk, world: World) -> Runner:
    return Runner("query", desk, lambda _m, _e: [], world.bus, world.ctx, Retry(1, 0.0, 0.0))


@asynccontextmanager
async def running(stream: FakeStream, desk: Desk, runner: Runner | None = None) -> AsyncIterator[asyncio.Task[None]]:
    runner = runner or runner_of(desk, World())
    add_concurrent_agent(stream.app, (ASKED,), runner, runner.ctx.telemetry, Bounds(LIMIT, 10_000))
    task = asyncio.create_task(cast(Any, stream.app.agents["query"](stream)))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settle() -> None:
    """Let every task run as far as it can. A record takes a few turns of the loop, and nothing here waits for time."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_records_do_not_wait_for_each_other_and_are_acknowledged_in_order() -> None:
    stream, desk = FakeStream(), Desk()
    stream.add(*[FakeMessage(offset) for offset in range(3)])
    async with running(stream, desk):
        desk.allow(1, 2)
        await settle()
        assert (desk.begun, desk.ended, stream.acknowledged) == ([0, 1, 2], [1, 2], [])
        desk.allow(0)
        await settle()
        assert stream.acknowledged == [0, 1, 2]


async def test_no_more_than_the_limit_is_in_flight_until_the_first_is_acknowledged() -> None:
    stream, desk = FakeStream(), Desk()
    stream.add(*[FakeMessage(offset) for offset in range(2 * LIMIT)])
    async with running(stream, desk):
        desk.allow(1, 2)
        await settle()
        assert desk.begun == [0, 1, 2]
        desk.allow(0)
        await settle()
        assert desk.begun == [0, 1, 2, 3, 4, 5]


async def test_a_record_that_fails_for_good_ends_the_role_and_nothing_from_it_on_is_acknowledged() -> None:
    """Faust would restart an agent that raised, behind the failed record. So the agent waits and reports the error."""
    stream, desk, world = FakeStream(), Desk(), World()
    world.journal.fail(f"publish {dead_letter_topic(ASKED)}", *[Refused("the dead letter is too large")] * 3)
    stream.add(FakeMessage(0), FakeMessage(1, value=b"bad"), FakeMessage(2), *map(FakeMessage, range(3, 9)))
    runner = runner_of(desk, world)
    async with running(stream, desk, runner) as task:
        desk.allow(0, 1)
        await settle()
        assert runner.health.ended_by == "Refused: the dead letter is too large"
        desk.allow(*range(2, 9))
        await settle()
        assert not task.done()
        assert stream.acknowledged == [0]
        assert 3 not in desk.ended


async def test_what_is_in_flight_behind_a_record_that_fails_for_good_is_cancelled() -> None:
    stream, desk, world = FakeStream(), Desk(), World()
    world.journal.fail(f"publish {dead_letter_topic(ASKED)}", *[Refused("the dead letter is too large")] * 3)
    stream.add(FakeMessage(0), FakeMessage(1, value=b"bad"), FakeMessage(2))
    async with running(stream, desk, runner_of(desk, world)):
        desk.allow(1)
        await settle()
        assert (sorted(desk.cancelled), desk.ended, stream.acknowledged) == ([0, 2], [], [])


async def test_a_dead_lettered_record_is_acknowledged_like_any_other() -> None:
    stream, desk, world = FakeStream(), Desk(), World()
    stream.add(FakeMessage(0, value=b"bad"), FakeMessage(1))
    async with running(stream, desk, runner_of(desk, world)):
        desk.allow(0, 1)
        await settle()
        assert stream.acknowledged == [0, 1]
        assert len(world.bus.inner.records(dead_letter_topic(ASKED))) == 1


async def test_cancellation_leaves_no_task_behind() -> None:
    stream, desk = FakeStream(), Desk()
    stream.add(*[FakeMessage(offset) for offset in range(5)])
    before = asyncio.all_tasks()
    async with running(stream, desk) as task:
        desk.allow(0)
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(desk.cancelled) == [1, 2, 3]
        assert asyncio.all_tasks() == before
        assert stream.acknowledged == [0]


async def test_a_stream_that_ends_has_its_records_finished_and_acknowledged() -> None:
    stream, desk = FakeStream(), Desk()
    stream.add(FakeMessage(0), FakeMessage(1))
    async with running(stream, desk) as task:
        await settle()
        stream.end()
        await settle()
        assert not task.done()
        desk.allow(0, 1)
        await task
        assert stream.acknowledged == [0, 1]
