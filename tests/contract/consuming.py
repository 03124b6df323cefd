"""Runs one role over a topic of the test's own on a real broker, with the real Faust application, agent and runner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from agents.batch import Batch, Failure, Failures
from agents.faust_apps import Bounds, add_batch_agent, make_app, start_apps, stop_apps
from agents.runner import Handler, Lost, Retry, Runner
from connectors.kafka import offsets, reader
from connectors.kafka.admin import apply
from connectors.kafka.bus import AiokafkaBus
from connectors.telemetry import Telemetry
from migration.context import HandlerContext
from schemas.cloudevents import InvalidEvent, unwrap
from schemas.dead_letters import SUFFIX, DeadLetter, read_dead_letter
from schemas.records import Received
from schemas.settings import Kafka
from topics.catalogue import group_of
from topics.provisioning import DEAD_LETTER_HEADER_BYTES, Action, DesiredTopic, Widening

BOUNDS = Bounds(256, 8 * 1024 * 1024)


async def make_topic(bootstrap: str, name: str, partitions: int, max_record_bytes: int) -> None:
    """Create a topic and its dead-letter topic, with the limits that provisioning gives to topics of large records."""
    for topic, limit in ((name, max_record_bytes), (name + SUFFIX, max_record_bytes + DEAD_LETTER_HEADER_BYTES)):
        config = {"max.message.bytes": str(limit)}
        desired = DesiredTopic(topic, partitions, 1, config, Widening.FREE, "a test")
        await apply(bootstrap, [Action("create", desired, "test", partitions, config)])


@dataclass
class Desk:
    """A handler that keeps the records it is given. Like the roles, it refuses records without a valid envelope."""

    taken: list[Received] = field(default_factory=list)
    largest_batch_bytes: int = 0

    async def __call__(self, batch: Batch) -> Failures:
        failures: Failures = []
        self.largest_batch_bytes = max(
            self.largest_batch_bytes, sum(len(message.record.value or b"") for message in batch)
        )
        for message in batch:
            try:
                unwrap(message.record)
            except InvalidEvent as error:
                failures.append(Failure(message, error))
            else:
                self.taken.append(message.record)
        return failures


def role_name() -> str:
    """Return a role name that no other test uses. The group name is derived from it."""
    return f"test-{uuid4().hex[:12]}"


@asynccontextmanager
async def consuming(
    kafka: Kafka,
    topic: str,
    handler: Handler,
    home: Path,
    role: str,
    *,
    bounds: Bounds = BOUNDS,
    lost: Lost = lambda _m, _e: [],
) -> AsyncIterator[Runner]:
    """Run a role until the block ends."""
    telemetry = Telemetry(tracing=False)
    bus = AiokafkaBus(kafka)
    ctx = HandlerContext(lambda: time.time_ns() // 1_000_000, 1, telemetry, kafka=kafka)
    runner = Runner(role, handler, lost, bus, ctx, Retry(2, 0.1, 0.1))
    app = make_app(role, kafka, home / "faust", bounds)
    add_batch_agent(app, (topic,), runner, telemetry, bounds)
    try:
        await start_apps([app])
        yield runner
    finally:
        await stop_apps([app], 10)
        await bus.close()


async def all_committed(kafka: Kafka, role: str, topic: str, limit_s: float = 30.0) -> None:
    """Wait until a role has committed all of a topic. Raises TimeoutError, which lists what is missing."""
    bootstrap = kafka.bootstrap or ""
    lags: list[offsets.Lag] = []
    try:
        async with asyncio.timeout(limit_s):
            while not lags or any(lag.lag for lag in lags):
                lags = await offsets.group_lag(bootstrap, group_of(role), [topic])
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise TimeoutError(f"not committed: {[lag for lag in lags if lag.lag]}") from None


async def letters_of(kafka: Kafka, topic: str) -> list[DeadLetter]:
    """Return the dead letters of a topic."""
    return [read_dead_letter(record) async for record in reader.read_topic(kafka.bootstrap or "", topic + SUFFIX)]
