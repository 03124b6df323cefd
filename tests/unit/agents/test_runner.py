"""The runner retries, isolates, dead-letters and reports losses. Only cancellation and refused dead letters escape."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from hashlib import sha256

import pytest

from agents.batch import Batch, Failure, Failures, Message
from agents.health import is_stuck, state_of
from agents.legacy_writer import confirm_refusal, write_legacy
from agents.outcomes import lost_embedded, lost_resolved
from agents.runner import Retry, Runner, _again
from connectors.errors import EmbeddingUnavailable, Misconfigured, Refused, StoreUnavailable, TransientError
from schemas.cloudevents import InvalidEvent
from schemas.dead_letters import read_dead_letter
from schemas.documents import DocumentWritten
from schemas.records import Outgoing, Received, size_of
from tests.unit.agents.parts import NOW, TRACEPARENT, World
from topics.catalogue import EMBEDDED, RESOLVED, SUBMITTED, WRITTEN, dead_letter_topic

DEAD = dead_letter_topic(SUBMITTED)
ATTEMPTS = 3
Handle = Callable[[Batch], Awaitable[Failures]]


class Script:
    """A handler that raises the given errors in turn, then handles. It refuses batches with a message `bad`."""

    def __init__(self, *errors: Exception, bad: Exception | None = None) -> None:
        self.errors = list(errors)
        self.bad = bad
        self.calls: list[list[bytes | None]] = []

    async def __call__(self, batch: Batch) -> Failures:
        values = [message.record.value for message in batch]
        self.calls.append(values)
        if self.errors:
            raise self.errors.pop(0)
        if self.bad and b"bad" in values:
            raise self.bad
        return [Failure(message, InvalidEvent("not good")) for message in batch if message.record.value == b"worse"]


def runner_of(world: World, handler: Handle) -> Runner:
    return Runner("intake", handler, lambda _m, _e: [], world.bus, world.ctx, Retry(ATTEMPTS, 0.0, 0.0))


def submitted(world: World, *values: str) -> list[Message]:
    headers = (("ce_id", b"e1"), ("traceparent", TRACEPARENT.encode()))
    return [world.bus.add(Outgoing(SUBMITTED, b"docs/1", value.encode(), headers)) for value in values]


def dead(world: World) -> list[bytes | None]:
    return [record.value for record in world.bus.inner.records(DEAD)]


async def test_a_batch_that_succeeds_is_handled_once_and_counted() -> None:
    world, handler = World(), Script()
    runner = runner_of(world, handler)
    await runner.run(submitted(world, "a", "b"))
    assert handler.calls == [[b"a", b"b"]]
    health = runner.health
    assert (health.handled, health.dead_letters, health.busy_since_s, health.waiting_for) == (2, 0, None, None)
    assert world.steps() == []


@pytest.mark.parametrize("error", [TransientError("busy"), EmbeddingUnavailable("queue"), StoreUnavailable("down")])
async def test_a_transient_error_is_tried_again(error: Exception) -> None:
    world, handler = World(), Script(error, error)
    await runner_of(world, handler).run(submitted(world, "a", "b"))
    assert handler.calls == [[b"a", b"b"]] * 3
    assert dead(world) == []


async def test_a_transient_error_that_stays_is_given_up_after_the_limit_message_by_message() -> None:
    world, handler = World(), Script(*[TransientError("busy")] * ATTEMPTS)
    await runner_of(world, handler).run(submitted(world, "a", "b"))
    assert handler.calls == [[b"a", b"b"]] * ATTEMPTS + [[b"a"], [b"b"]]
    assert dead(world) == []
    handler = Script(*[TransientError("busy")] * ATTEMPTS)
    runner = runner_of(world, handler)
    await runner.run(submitted(world, "c"))
    assert handler.calls == [[b"c"]] * ATTEMPTS
    assert (dead(world), runner.health.dead_letters) == ([b"c"], 1)


async def test_a_store_that_does_not_answer_is_waited_for_without_a_limit() -> None:
    world, handler = World(), Script(*[StoreUnavailable("down")] * (5 * ATTEMPTS + 1))
    runner = runner_of(world, handler)
    await runner.run(submitted(world, "a"))
    assert len(handler.calls) == 5 * ATTEMPTS + 2
    assert (dead(world), runner.health.waiting_for) == ([], None)


async def test_a_store_that_says_when_to_come_back_is_left_alone_until_then_but_for_a_minute_at_most() -> None:
    world, handler = World(), Script(StoreUnavailable("slow down", retry_after_s=0.2))
    started = time.monotonic()
    await runner_of(world, handler).run(submitted(world, "a"))
    assert 0.2 <= time.monotonic() - started < 5
    assert _again(StoreUnavailable("slow down", retry_after_s=86_400.0)) == 60.0
    assert _again(StoreUnavailable("down")) is True
    assert _again(Refused("no")) is False


async def test_a_role_that_does_not_give_up_waits_for_every_error_that_may_pass() -> None:
    world, handler = World(), Script(*[TransientError("busy")] * (3 * ATTEMPTS))
    runner = runner_of(world, handler)
    runner.gives_up = False
    await runner.run(submitted(world, "a", "b"))
    assert handler.calls == [[b"a", b"b"]] * (3 * ATTEMPTS + 1)
    assert dead(world) == []


async def test_a_role_that_waits_for_a_store_is_degraded_and_not_stuck() -> None:
    world = World()
    seen: list[tuple[str | None, str, bool]] = []

    async def handler(batch: Batch) -> Failures:
        health, now = runner.health, time.monotonic() + 1000
        seen.append((health.waiting_for, state_of(health, 60, now), is_stuck(health, 60, now)))
        if len(seen) == 1:
            raise StoreUnavailable("PostgreSQL is down")
        return []

    runner = runner_of(world, handler)
    await runner.run(submitted(world, "a"))
    assert seen == [(None, "stuck", True), ("StoreUnavailable: PostgreSQL is down", "degraded", False)]


async def test_what_follows_in_a_batch_after_a_wait_is_not_taken_for_waiting() -> None:
    world = World()
    waiting: list[str | None] = []

    async def handler(batch: Batch) -> Failures:
        waiting.append(runner.health.waiting_for)
        if len(batch) > 1:
            raise Refused("one of them")
        if len(waiting) == 2:
            raise StoreUnavailable("down")
        return []

    runner = runner_of(world, handler)
    await runner.run(submitted(world, "a", "b"))
    assert waiting == [None, None, "StoreUnavailable: down", None]


@pytest.mark.parametrize("error", [Refused("no"), Misconfigured("no table"), InvalidEvent("no"), ZeroDivisionError()])
async def test_one_bad_record_does_not_lose_the_others(error: Exception) -> None:
    world, handler = World(), Script(bad=error)
    runner = runner_of(world, handler)
    await runner.run(submitted(world, "a", "bad", "c"))
    assert handler.calls == [[b"a", b"bad", b"c"], [b"a"], [b"bad"], [b"c"]]
    assert (dead(world), runner.health.handled) == ([b"bad"], 3)


async def test_neither_the_dead_letter_nor_the_log_of_what_pydantic_refuses_has_values_in_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()

    async def handler(batch: Batch) -> Failures:
        DocumentWritten.model_validate({"collection": "docs", "id": ["a secret"]})
        return []

    await runner_of(world, handler).run(submitted(world, "a"))
    (letter,) = world.bus.inner.records(DEAD)
    assert "id: Input should be a valid string" in read_dead_letter(letter).message
    assert "secret" not in read_dead_letter(letter).message + caplog.text


async def test_what_a_handler_returns_as_failed_is_dead_lettered_without_another_try() -> None:
    world, handler = World(), Script()
    await runner_of(world, handler).run(submitted(world, "worse", "a", "worse"))
    assert len(handler.calls) == 1
    assert dead(world) == [b"worse", b"worse"]


async def test_a_dead_letter_is_the_record_with_where_it_came_from_and_why() -> None:
    world = World()
    batch = submitted(world, "a", "bad")
    await runner_of(world, Script(bad=Refused("value too long"))).run(batch)
    (record,) = world.bus.inner.records(DEAD)
    assert record.headers == (
        ("ce_id", b"e1"),
        ("__connect.errors.topic", SUBMITTED.encode()),
        ("__connect.errors.partition", b"0"),
        ("__connect.errors.offset", b"1"),
        ("__connect.errors.stage", b"intake"),
        ("__connect.errors.exception.class.name", b"connectors.errors.Refused"),
        ("__connect.errors.exception.message", b"value too long"),
        ("crossfade.errors.attempt", str(ATTEMPTS).encode()),
        ("crossfade.errors.timestamp", str(NOW - 5).encode()),
        ("crossfade.errors.epoch", b"1"),
    )
    letter = read_dead_letter(record)
    assert letter.original == Outgoing(SUBMITTED, b"docs/1", b"bad", (("ce_id", b"e1"),))
    assert (letter.partition, letter.offset) == (0, 1)


@pytest.mark.parametrize("store", ["legacy", "qdrant"])
async def test_the_outcome_of_a_lost_version_is_published_with_its_dead_letter(store: str) -> None:
    world = await World().prepared()
    handler = Script(Refused("no"))
    runner = runner_of(world, handler)
    if store == "legacy":
        runner.lost = partial(lost_resolved, store="legacy", ctx=world.ctx)
        message, topic = world.resolved("1", 5), RESOLVED
    else:
        runner.lost = partial(lost_embedded, ctx=world.ctx)
        message, topic = await world.embedded("1", 5, "a"), EMBEDDED
    await runner.run([message])
    (event,) = world.bus.events(WRITTEN, DocumentWritten)
    assert (event.store, event.id, event.version, event.outcome, event.error) == (
        store,
        "1",
        5,
        "dead_lettered",
        "no",
    )
    assert world.steps() == [f"publish {dead_letter_topic(topic)} {WRITTEN}"]


async def test_a_lost_record_that_is_no_event_has_no_outcome_and_is_not_lost_itself() -> None:
    world = World()
    runner = runner_of(world, Script(Refused("no")))
    runner.lost = partial(lost_resolved, store="legacy", ctx=world.ctx)
    await runner.run([world.bus.add(Outgoing(RESOLVED, b"docs/1", b"{"))])
    assert world.steps() == [f"publish {dead_letter_topic(RESOLVED)}"]


async def test_a_dead_letter_waits_for_brokers_that_do_not_answer() -> None:
    world = World()
    world.journal.fail(f"publish {DEAD}", *[StoreUnavailable("no broker")] * (2 * ATTEMPTS))
    runner = runner_of(world, Script(bad=Refused("no")))
    await runner.run(submitted(world, "bad"))
    assert (dead(world), runner.health.dead_letters) == ([b"bad"], 1)


async def test_a_dead_letter_that_the_broker_refuses_for_good_gets_out_and_nothing_counts_as_handled() -> None:
    world = World()
    world.journal.fail(f"publish {DEAD}", *[Refused("too large")] * 3)
    runner = runner_of(world, Script(bad=Refused("no")))
    with pytest.raises(Refused, match="too large"):
        await runner.run(submitted(world, "bad"))
    assert (runner.health.handled, runner.health.dead_letters, runner.health.busy_since_s) == (0, 0, None)


async def test_cancellation_gets_out_and_is_no_dead_letter() -> None:
    world = World()
    begun = asyncio.Event()

    async def handler(_: Batch) -> Failures:
        begun.set()
        await asyncio.Event().wait()
        return []

    runner = runner_of(world, handler)
    task = asyncio.create_task(runner.run(submitted(world, "a", "b")))
    await begun.wait()
    assert runner.health.busy_since_s is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (dead(world), runner.health.handled) == ([], 0)
    assert runner.health.busy_since_s is None


async def test_cancellation_gets_out_of_a_wait_for_a_store() -> None:
    world, handler = World(), Script(*[StoreUnavailable("down")] * 100)
    runner = runner_of(world, handler)
    runner.retry = Retry(ATTEMPTS, wait_max_s=3600.0, wait_initial_s=3600.0)
    task = asyncio.create_task(runner.run(submitted(world, "a")))
    for _ in range(20):  # a few turns of the loop, until the first wait begins
        await asyncio.sleep(0)
    assert runner.health.waiting_for == "StoreUnavailable: down"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert dead(world) == []


async def test_a_failure_is_noted_as_reported_after_its_dead_letter_is_published() -> None:
    world = World()
    noted: list[tuple[bytes | None, list[bytes | None]]] = []

    async def note(failure: Failure) -> None:
        noted.append((failure.message.record.value, dead(world)))

    runner = runner_of(world, Script())
    runner.on_dead_letter = note
    await runner.run(submitted(world, "a", "worse"))
    assert noted == [(b"worse", [b"worse"])]


async def test_a_note_that_cannot_be_made_stops_nothing() -> None:
    world = World()

    async def noted(_: Failure) -> None:
        raise Misconfigured("the ledger is gone")

    runner = runner_of(world, Script())
    runner.on_dead_letter = noted
    await runner.run(submitted(world, "worse", "a", "worse"))
    assert (dead(world), runner.health.dead_letters) == ([b"worse", b"worse"], 2)


async def test_a_refused_change_has_one_dead_letter_however_often_it_is_delivered() -> None:
    world = World(constraint=lambda _id, _content: "value too long")
    runner = runner_of(world, partial(write_legacy, **world.handled))
    runner.lost = partial(lost_resolved, store="legacy", ctx=world.ctx)
    runner.on_dead_letter = partial(confirm_refusal, collections=world.collections)
    batch = [world.resolved("1", 5)]
    world.journal.fail(f"publish {dead_letter_topic(RESOLVED)} {WRITTEN}", StoreUnavailable("no broker"))
    for _ in range(3):
        await runner.run(batch)
    assert len(world.bus.inner.records(dead_letter_topic(RESOLVED))) == 1
    assert world.outcomes()[0] == ("1", 5, "dead_lettered")


class Narrow:
    """A bus whose topics take smaller records than they were created for."""

    def __init__(self, world: World, limit: int) -> None:
        self.world, self.limit = world, limit

    async def publish(self, records: Sequence[Outgoing]) -> None:
        if any(size_of(record) > self.limit for record in records):
            raise Refused("too large")
        await self.world.bus.publish(records)


@pytest.mark.parametrize(("limit", "kept"), [(100 << 20, 15 << 20), (600_000, 400_000), (70_000, 9_000)])
async def test_a_record_that_is_too_large_for_its_dead_letter_topic_is_kept_cut(limit: int, kept: int) -> None:
    world = World()
    runner = runner_of(world, Script(bad=InvalidEvent("no")))
    runner.bus = Narrow(world, limit)
    value = b"bad" + b"x" * (40 << 20)

    async def refuse(batch: Batch) -> Failures:
        return [Failure(batch[0], InvalidEvent("no"))]

    runner.handler = refuse
    await runner.run([Message(Received(SUBMITTED, 2, 17, b"docs/1", value))])
    (record,) = world.bus.inner.records(DEAD)
    letter = read_dead_letter(record)
    found = letter.original.value or b""
    assert min(kept, 15 << 20) < len(found) < len(value)
    assert letter.cut == {"value": {"bytes": len(value), "sha256": sha256(value).hexdigest()}}
    assert (letter.partition, letter.offset, runner.health.dead_letters) == (2, 17, 1)


@pytest.mark.parametrize("answer", [None, Outgoing(WRITTEN, b"k", bytes(2 << 20))])
async def test_an_answer_that_cannot_be_given_does_not_hold_back_the_dead_letter(answer: Outgoing | None) -> None:
    world = World()

    def lost(_: Message, __: Exception) -> list[Outgoing]:
        if answer is None:
            raise TypeError("recursion")
        return [answer]

    runner = runner_of(world, Script(bad=InvalidEvent("no")))
    runner.lost = lost
    await runner.run(submitted(world, "bad"))
    assert dead(world) == [b"bad"]
