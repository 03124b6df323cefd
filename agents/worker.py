"""A worker: the agents of some roles in one process, with health page and watchdog. Ends when told, or stuck."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agents.assembly import Opened
from agents.batch import Batch, Failure, Failures, Message, Surroundings
from agents.capture import capture
from agents.embedder import embed
from agents.faust_apps import add_batch_agent, add_concurrent_agent, group_of, make_app, start_apps, stop_apps
from agents.health import is_stuck, serve_health
from agents.intake import intake, refused_submission
from agents.legacy_writer import refusal_told, write_legacy
from agents.outcomes import lost_embedded, lost_resolved
from agents.query import Breakers, answer, refused_question
from agents.resolver import resolve
from agents.runner import Handler, Lost, Retry, RoleHealth, Runner
from agents.vector_writer import write_vectors
from agents.wiring import WIRING, RoleName
from connectors.errors import CrossfadeError
from connectors.kafka.tail import group_lag
from connectors.telemetry import Telemetry
from schemas.cloudevents import InvalidEvent
from schemas.records import Outgoing
from topics.catalogue import capture_topic
from topics.provisioning import captured_table

log = logging.getLogger("crossfade.worker")
END_POLL_S = 0.5


def now_ms() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class Worker:
    """The agents of the given roles over opened ports."""

    def __init__(self, opened: Opened, roles: Sequence[RoleName], home: Path, telemetry: Telemetry) -> None:
        self._opened = opened
        self._settings = opened.settings
        self._telemetry = telemetry
        self._around = Surroundings(now_ms, opened.epoch, telemetry, opened.settings.kafka.max_text_bytes)
        self._apps: list[Any] = []
        self._runners: list[Runner] = []
        self._topics: dict[str, tuple[str, ...]] = {}
        self._started = False
        self.port = 0
        for role in WIRING:
            if role.name in roles:
                self._add(role.name, role.reads, home)

    def _add(self, role: RoleName, reads: tuple[str, ...], home: Path) -> None:
        bounds = self._settings.worker
        prefix = self._settings.kafka.capture_prefix
        tables = {
            capture_topic(prefix, captured_table(ports.settings)): ports for ports in self._opened.collections.values()
        }
        ports: dict[str, Any] = {
            "collections": self._opened.collections,
            "bus": self._opened.bus,
            "around": self._around,
        }
        health = RoleHealth(role)
        handlers: dict[RoleName, Handler] = {
            "intake": partial(intake, **ports),
            "capture": partial(capture, tables=tables, bus=self._opened.bus, around=self._around),
            "resolver": partial(resolve, **ports),
            "legacy": partial(write_legacy, **ports),
            "embedder": partial(embed, progress=health.progressed, **ports),
            "vector": partial(write_vectors, **ports),
            "query": self._one_question(partial(answer, breakers=Breakers(self._settings.routing), **ports)),
        }
        runner = Runner(
            role,
            handlers[role],
            self._lost(role),
            self._opened.bus,
            self._around,
            Retry(bounds.retry_attempts, bounds.retry_max_s),
            kept=health,
        )
        if role == "legacy":
            runner.told = partial(refusal_told, collections=self._opened.collections)
        topics = reads or tuple(tables)
        app = make_app(role, self._settings.kafka, home / "faust", 4 * bounds.batch)
        if role == "query":
            add_concurrent_agent(app, topics, runner, self._telemetry, bounds.queries_in_flight)
        else:
            add_batch_agent(app, topics, runner, self._telemetry, bounds.batch, bounds.batch_interval_ms / 1000)
        self._apps.append(app)
        self._runners.append(runner)
        self._topics[role] = topics

    @staticmethod
    def _one_question(call: Callable[[Message], Any]) -> Handler:
        async def handle(batch: Batch) -> Failures:
            failures: Failures = []
            for message in batch:
                try:
                    await call(message)
                except InvalidEvent as error:
                    failures.append(Failure(message, error))
            return failures

        return handle

    def _lost(self, role: RoleName) -> Lost:
        def none(_: Message, __: Exception) -> list[Outgoing]:
            return []

        lost: dict[RoleName, Lost] = {
            "intake": partial(refused_submission, around=self._around),
            "legacy": partial(lost_resolved, store="legacy", around=self._around),
            "embedder": partial(lost_resolved, store="qdrant", around=self._around),
            "vector": partial(lost_embedded, around=self._around),
            "query": partial(refused_question, around=self._around),
        }
        return lost.get(role, none)

    async def run(self, stop: asyncio.Event, ready: Callable[[int], None]) -> bool:
        """Consume until told to stop; `ready` is called with the port of the health page.

        Returns False when a role is stuck or its agent ended by an error.
        """
        bounds = self._settings.worker
        healths = [runner.health for runner in self._runners]
        site, self.port = await serve_health(healths, lambda: self._started, bounds.http_port, bounds.stall_s)
        watchdogs = {asyncio.create_task(self._watch()), asyncio.create_task(self._end())}
        stopping = asyncio.create_task(stop.wait())
        try:
            await start_apps(self._apps)
            self._started = True
            ready(self.port)
            done, _ = await asyncio.wait({*watchdogs, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return not done & watchdogs
        finally:
            self._started = False
            for task in (*watchdogs, stopping):
                task.cancel()
            await stop_apps(self._apps, bounds.drain_s)
            await site.cleanup()

    async def _end(self) -> None:
        """Return when an agent, or what Faust runs under it, ended by an error: nothing is consumed there any more."""
        while True:
            ended = [runner.role for runner in self._runners if runner.health.ended_by is not None]
            ended += [app.conf.id for app in self._apps if app.crashed]
            if ended:
                log.error("%s ended by an error", ", ".join(ended))
                return
            await asyncio.sleep(END_POLL_S)

    async def _watch(self) -> None:
        """Return when a role is stuck: busy too long, or records wait for it and nothing was handled for `stall_s`."""
        stall_s = self._settings.worker.stall_s
        handled: dict[str, int] = {}
        while True:
            await asyncio.sleep(stall_s / 2)
            for runner in self._runners:
                health = runner.health
                if is_stuck(health, stall_s, time.monotonic()):
                    log.error("%s is stuck in one batch for more than %.0f s", health.role, stall_s)
                    return
                idle = time.monotonic() - health.finished_at_s > stall_s
                unmoved = handled.get(health.role) == health.handled
                if idle and unmoved and health.busy_since_s is None and await self._lags(health.role):
                    log.error("%s has records to read and took none for %.0f s", health.role, stall_s)
                    return
                handled[health.role] = health.handled

    async def _lags(self, role: str) -> bool:
        try:
            lags = await group_lag(self._settings.kafka.bootstrap or "", group_of(role), self._topics[role])
        except CrossfadeError:
            return False
        return any(lag.lag > 0 for lag in lags)
