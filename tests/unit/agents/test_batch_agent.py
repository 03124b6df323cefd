"""A role's batches are handled one after the other. A batch that was not handled to its end is never acknowledged."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from agents.batch import Batch, Failures
from agents.faust_apps import Bounds, add_batch_agent
from agents.runner import Retry, Runner
from connectors.errors import Refused
from tests.unit.agents.parts import World
from tests.unit.agents.streams import FakeMessage, FakeStream
from topics.catalogue import ASKED, dead_letter_topic

DEAD = f"publish {dead_letter_topic(ASKED)}"


class Desk:
    """A handler that records the offsets of each batch, and the acknowledged offsets when the batch began."""

    def __init__(self, stream: FakeStream) -> None:
        self.stream = stream
        self.batches: list[tuple[list[int], list[int]]] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def __call__(self, batch: Batch) -> Failures:
        self.batches.append(([message.record.offset for message in batch], list(self.stream.acknowledged)))
        await self.hold.wait()
        if any(message.record.value == b"bad" for message in batch):
            raise Refused("no")
        return []


def runner_of(desk: Desk, world: World) -> Runner:
    return Runner("intake", desk, lambda _m, _e: [], world.bus, world.ctx, Retry(1, 0.0, 0.0))


def started(stream: FakeStream, runner: Runner) -> asyncio.Task[None]:
    add_batch_agent(stream.app, (ASKED,), runner, runner.ctx.telemetry, Bounds(3, 10_000))
    return asyncio.create_task(cast(Any, stream.app.agents["intake"](stream)))


async def settle() -> None:
    """Let the agent run as far as it can. A batch takes a few turns of the loop."""
    for _ in range(100):
        await asyncio.sleep(0)


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_batch_begins_when_the_one_before_it_is_acknowledged() -> None:
    stream = FakeStream()
    desk = Desk(stream)
    stream.add(*[FakeMessage(offset) for offset in range(5)])
    task = started(stream, runner_of(desk, World()))
    await settle()
    assert desk.batches == [([0, 1, 2], []), ([3, 4], [0, 1, 2])]
    assert stream.acknowledged == [0, 1, 2, 3, 4]
    await end(task)


async def test_a_dead_lettered_record_is_acknowledged_with_its_batch() -> None:
    stream, world = FakeStream(), World()
    stream.add(FakeMessage(0), FakeMessage(1, value=b"bad"), FakeMessage(2))
    task = started(stream, runner_of(Desk(stream), world))
    await settle()
    assert stream.acknowledged == [0, 1, 2]
    assert world.steps() == [DEAD]
    await end(task)


async def test_a_dead_letter_refused_for_good_ends_the_role_with_nothing_of_its_batch_acknowledged() -> None:
    stream, world = FakeStream(), World()
    desk = Desk(stream)
    world.journal.fail(DEAD, *[Refused("too large")] * 3)
    stream.add(FakeMessage(0), FakeMessage(1, value=b"bad"), FakeMessage(2), FakeMessage(3))
    runner = runner_of(desk, world)
    task = started(stream, runner)
    await settle()
    assert runner.health.ended_by == "Refused: too large"
    assert not task.done()
    assert (stream.acknowledged, stream.channel.queue.qsize()) == ([], 1)
    await end(task)


async def test_a_stream_that_faust_stops_ends_the_agent_without_an_error() -> None:
    stream = FakeStream()
    runner = runner_of(Desk(stream), World())
    task = started(stream, runner)
    stream.add(FakeMessage(0))
    await settle()
    stream.end()
    await task
    assert (stream.acknowledged, runner.health.ended_by) == ([0], None)


async def test_cancellation_acknowledges_nothing_that_is_in_hand() -> None:
    stream = FakeStream()
    desk = Desk(stream)
    desk.hold.clear()
    stream.add(FakeMessage(0), FakeMessage(1))
    task = started(stream, runner_of(desk, World()))
    await settle()
    assert [offsets for offsets, _ in desk.batches] == [[0, 1]]
    await end(task)
    assert task.cancelled()
    assert stream.acknowledged == []
