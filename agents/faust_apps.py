"""One Faust application for each role, so that each role has its own consumer group and none waits behind another.

Values stay raw bytes: the handler makes a dead letter of what it cannot decode, and Faust never skips a record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faust

from agents.batch import Batch, Message
from agents.batches import acknowledge, batches, received
from agents.faust_transport import PromptTransport, RawSchema
from agents.runner import Runner
from connectors.failpoints import passing
from connectors.kafka.consumer import PARTITION_FETCH_BYTES, PASSED_OVER, read_everything
from connectors.telemetry import Telemetry
from schemas.settings import Kafka
from topics.catalogue import group_of

# Must not be below the brokers' group.min.session.timeout.ms, which is 6 s by default.
SESSION_TIMEOUT_S = 10.0
log = logging.getLogger("crossfade.agents")


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one batch: its records, its bytes, and the interval at which batches begin.

    A batch ends with the record that reaches `bytes`. For a role whose records do not wait for each other, `records` is
    the number of records in flight.
    """

    records: int
    bytes: int
    interval_s: float = 0.0


def make_app(role: str, kafka: Kafka, data: Path, bounds: Bounds) -> Any:
    """Return a Faust application that consumes for one role; it owns no tables, no web server and no topics.

    The buffer before its agent holds at most four batches in records, and one batch in bytes.
    """
    read_everything()
    data.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        group_of(role),
        broker=f"aiokafka://{kafka.bootstrap}",
        datadir=str(data / role),
        store="memory://",
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=kafka.partitions,
        web_enabled=False,
        web_tables_enabled=False,
        stream_wait_empty=False,
        stream_buffer_maxsize=4 * bounds.records,
        stream_recovery_delay=0.0,
        broker_commit_interval=1.0,
        # After this time, another worker takes over the partitions of a killed one. Faust's default of 60 s would be
        # the whole time of an outage.
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=SESSION_TIMEOUT_S / 5,
        broker_rebalance_timeout=30.0,
        # A join may wait for the whole rebalance. A connection that is silent for longer than this is dropped.
        broker_request_timeout=35.0,
        broker_commit_every=10_000,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=PARTITION_FETCH_BYTES,
        producer_acks=-1,
        producer_linger=0,
        key_serializer="raw",
        value_serializer="raw",
        autodiscover=False,
    )
    app.transport = PromptTransport(app.conf.broker_consumer, app, buffer_bytes=bounds.bytes)
    return app


def add_batch_agent(
    app: Any,
    topics: Sequence[str],
    runner: Runner,
    telemetry: Telemetry,
    bounds: Bounds,
    run: Callable[[Batch], Awaitable[None]] | None = None,
) -> None:
    """Add the agent of a role that handles whole batches, one at a time, with `run` or else with its runner."""
    group = app.conf.id
    before_commit = f"{runner.role}.before_commit"

    async def consume(stream: Any) -> None:
        async for events, records in batches(stream, bounds.records, bounds.bytes, bounds.interval_s):
            messages = [Message(record, telemetry.received(record, group)) for record in records]
            try:
                if messages:
                    await (run or runner.run)(messages)
            finally:
                for message in messages:
                    message.trace.finish()
            passing(before_commit)
            acknowledge(stream, events)

    async def agent(stream: Any) -> None:
        await _consume(runner, consume(stream))

    app.agent(app.topic(*topics, schema=RawSchema()), name=runner.role, concurrency=1)(agent)


def add_concurrent_agent(app: Any, topics: Sequence[str], runner: Runner, telemetry: Telemetry, bounds: Bounds) -> None:
    """Add the agent of a role whose records do not wait for each other.

    At most `bounds.records` records are unacknowledged at a time. Records are still acknowledged in the order of their
    arrival. If one raises, nothing from that record on is acknowledged, and the others in flight are cancelled, as they
    are when the agent is cancelled.
    """
    group = app.conf.id

    async def handle(delivered: Any) -> None:
        if delivered.value is PASSED_OVER:
            return
        record = received(delivered)
        message = Message(record, telemetry.received(record, group))
        try:
            await runner.run([message])
        finally:
            message.trace.finish()

    async def consume(stream: Any) -> None:
        room = asyncio.Semaphore(bounds.records)
        # Never holds more than `room` allows.
        waiting: asyncio.Queue[tuple[Any, asyncio.Task[None]]] = asyncio.Queue()

        async def acknowledge_in_order() -> None:
            while True:
                event, task = await waiting.get()
                await task
                acknowledge(stream, [event])
                room.release()
                waiting.task_done()

        async with asyncio.TaskGroup() as tasks:
            acknowledging = tasks.create_task(acknowledge_in_order())
            async for events, _ in batches(stream, bounds.records, bounds.bytes):
                for event in events:
                    await room.acquire()
                    waiting.put_nowait((event, tasks.create_task(handle(event.message))))
            await waiting.join()
            acknowledging.cancel()

    async def agent(stream: Any) -> None:
        await _consume(runner, consume(stream))

    app.agent(app.topic(*topics, schema=RawSchema()), name=runner.role, concurrency=1)(agent)


async def _consume(runner: Runner, body: Awaitable[None]) -> None:
    """Run an agent's body; if it raises, note the error in the role's health and take no more records.

    Faust would restart an agent that ended with an error, and the agent would continue after the records that were not
    handled.
    """
    try:
        await body
    except Exception as error:
        cause: Exception = error
        while isinstance(cause, ExceptionGroup):
            cause = cause.exceptions[0]
        log.exception("%s ended by an error; what it has in hand will be delivered again", runner.role)
        runner.health.ended_by = f"{type(cause).__name__}: {cause}"
        await asyncio.Event().wait()  # until the application is stopped


async def start_apps(apps: Sequence[Any]) -> None:
    """Start every application; their agents consume when this returns. Raises the first error."""
    for app in apps:
        app.finalize()
    # Concurrently: each application waits for a second in the step that would load its tables.
    for ended in await asyncio.gather(*(app.start() for app in apps), return_exceptions=True):
        if isinstance(ended, BaseException):
            raise ended


async def stop_apps(apps: Sequence[Any], limit_s: float) -> None:
    """Stop every application within a limit: end fetching, and commit what is finished."""
    stops: list[Awaitable[None]] = [_stop(app) for app in apps]
    try:
        async with asyncio.timeout(limit_s):
            await asyncio.gather(*stops)
    except TimeoutError:
        log.warning("not all agents stopped within %.0f s; what they had in flight will be delivered again", limit_s)


async def _stop(app: Any) -> None:
    await app.stop()
