"""A worker: the agents of some roles in one process, with health page and watchdog. Ends when told, or stuck."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from agents.batch import Batch, Failure, Failures, Message
from agents.capture import capture
from agents.embedder import embed
from agents.faust_apps import Bounds, add_batch_agent, add_concurrent_agent, make_app, start_apps, stop_apps
from agents.health import is_stuck, serve_health
from agents.intake import intake, refused_submission
from agents.lane_wiring import LANED, PARKING, lanes_of
from agents.lanes import Lanes
from agents.legacy_writer import lost_write, refusal_told, write_legacy
from agents.outcomes import lost_embedded, lost_resolved
from agents.query import Breakers, answer, refused_question
from agents.resolver import dead_letter_told, lost_entry, resolve
from agents.runner import Handler, Lost, Retry, RoleHealth, Runner
from agents.status_reporter import Standing
from agents.vector_writer import write_vectors
from agents.watchdog import Awake, CommitWatch
from agents.wiring import WIRING, RoleName
from connectors.addresses import brokers_of
from connectors.errors import CrossfadeError
from connectors.kafka.tail import group_lag
from connectors.ports import LegacyTable
from connectors.telemetry import Telemetry
from domain.positions import StreamPlaces
from domain.quarantine import Halt, Reason
from migration.collection import CollectionPorts, Opened
from migration.context import HandlerContext, now_ms
from migration.epochs import reachable_epochs
from migration.quarantine import Halts
from migration.witnesses import Written
from schemas.cloudevents import InvalidEvent
from schemas.records import Outgoing
from topics.catalogue import group_of

log = logging.getLogger("crossfade.worker")
END_POLL_S = 0.5
# How soon a worker notices that a collection was stopped, or mended, by somebody else.
FOLLOW_S = 2.0
# The others bear the order of changes: one that they left out, or half did, would be missed by those after it.
GIVING_UP: tuple[RoleName, ...] = ("embedder", "vector", "query")


def _opened_tables(captured: Mapping[str, CollectionPorts]) -> dict[str, LegacyTable]:
    return {topic: ports.table for topic, ports in captured.items()}


class Worker:
    """The agents of the given roles over opened ports."""

    def __init__(
        self, opened: Opened, roles: Sequence[RoleName], home: Path, telemetry: Telemetry, halts: Halts | None = None
    ) -> None:
        self._opened = opened
        self._settings = opened.settings
        self._telemetry = telemetry
        self._epochs = opened.epochs
        self._ctx = self._context()
        self._standing = Standing(opened.bus, self._ctx)
        self._home = home
        self._apps: list[Any] = []
        self._runners: list[Runner] = []
        self._healths: dict[RoleName, RoleHealth] = {}
        self._captured: dict[str, LegacyTable] = {}
        self._places = StreamPlaces()
        self._lanes: list[Lanes] = []
        self._stops: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._started = False
        self.halts = halts or Halts(opened.collections, telemetry, kafka=opened.settings.kafka)
        self.port = 0
        self.written = Written()
        self._roles = [role for role in WIRING if role.name in roles]
        self._suspended = bool(self.halts.replaced)
        for role in self._roles:
            if self._suspended and role.name != "query":
                self._note_suspended(role.name)
            else:
                self._add(role.name, role.reads)

    def _context(self) -> HandlerContext:
        epochs, kafka = self._epochs, self._settings.kafka
        return HandlerContext(now_ms, epochs.version, self._telemetry, kafka.max_text_bytes, kafka, epochs.producer)

    def _add(self, role: RoleName, reads: tuple[str, ...]) -> Any:
        """Make the application of a role; nothing is made for capture without a collection in service."""
        bounds = self._settings.worker
        health = self._healths.setdefault(role, RoleHealth(role))
        tables = self._tables() if role == "capture" else {}
        topics = reads or tuple(tables)
        if not topics:
            return None
        handler = self._handler(role, tables, health)
        runner = self._runner(role, handler, health)
        of_batch = Bounds(bounds.batch, bounds.batch_bytes, bounds.batch_interval_ms / 1000)
        app = make_app(role, self._settings.kafka, self._home / "faust", of_batch)
        if role == "query":
            in_flight = Bounds(bounds.queries_in_flight, bounds.batch_bytes)
            add_concurrent_agent(app, topics, runner, self._telemetry, in_flight)
        else:
            add_batch_agent(app, topics, runner, self._telemetry, of_batch, self._laned(role, app, handler, health))
        self._apps.append(app)
        self._runners.append(runner)
        if role == "capture":
            self._captured = _opened_tables(tables)
        return app

    def _runner(self, role: RoleName, handler: Handler, health: RoleHealth) -> Runner:
        bounds = self._settings.worker
        runner = Runner(
            role,
            handler,
            self._lost(role),
            self._opened.bus,
            self._ctx,
            Retry(bounds.retry_attempts, bounds.retry_max_s),
            gives_up=role in GIVING_UP,
            waits_for_rights=role in PARKING,
            kept=health,
        )
        if role == "legacy":
            runner.told = partial(refusal_told, collections=self._opened.collections)
        if role == "resolver":
            runner.told = partial(dead_letter_told, collections=self._opened.collections, ctx=self._ctx)
        return runner

    def _laned(
        self, role: RoleName, app: Any, handler: Handler, health: RoleHealth
    ) -> Callable[[Batch], Awaitable[None]] | None:
        """Return what handles the batches of a role in lanes, None for one without."""
        if role not in LANED:
            return None
        opened, halts, runner = self._opened, self.halts, partial(self._runner, role, handler)
        lanes = lanes_of(role, app, health, runner, opened, halts, self._telemetry, self._expired)
        self._lanes.append(lanes)
        return lanes.run

    def _expired(self, name: str, detail: str) -> None:
        """Stop a collection that was away for longer than its records are kept."""
        task = asyncio.create_task(self.halts.halt(name, Reason.CAPTURE_LOST, detail))
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)

    def _stopped(self, name: str) -> Halt | None:
        """Return why Qdrant may lack changes of a collection; not that its database is away, when it alone answers."""
        halt = self.halts.of(name)
        return None if halt is not None and halt.reason is Reason.UNREACHABLE else halt

    def _handler(self, role: RoleName, tables: Mapping[str, CollectionPorts], health: RoleHealth) -> Handler:
        ports: dict[str, Any] = {
            "collections": self._opened.collections,
            "bus": self._opened.bus,
            "ctx": self._ctx,
        }
        captured = partial(capture, tables=tables, bus=self._opened.bus, ctx=self._ctx)
        breakers = Breakers(self._settings.routing, self._standing.tell)
        question = partial(answer, breakers=breakers, stopped=self._stopped, **ports)
        handlers: dict[RoleName, Handler] = {
            "intake": partial(intake, **ports),
            "capture": partial(captured, unreadable=self._unreadable, places=self._places),
            "resolver": partial(resolve, **ports),
            "legacy": partial(write_legacy, **ports),
            "embedder": partial(embed, progress=health.progressed, **ports),
            "vector": partial(write_vectors, noted=self.written.note, **ports),
            "query": self._one_question(question),
        }
        return handlers[role]

    def _tables(self) -> dict[str, CollectionPorts]:
        """Return the collections whose captured changes are taken, by their topics."""
        return {
            ports.capture.topic: ports
            for name, ports in self._opened.collections.items()
            if ports.capture is not None and ((halt := self.halts.of(name)) is None or halt.captures)
            if not self.halts.holds_capture(name)
        }

    async def _unreadable(self, name: str, reason: Reason, detail: str) -> None:
        """Stop a collection; never returns: with the stopped application this call is cancelled, not acknowledged."""
        await self.halts.halt(name, reason, detail)
        self._changed.set()
        await asyncio.Event().wait()

    def changed(self) -> None:
        """Tell that `halts` changed, so that capture goes on without what is stopped, and with what is mended."""
        self._changed.set()

    async def _follow(self) -> None:
        """Take part in stops and mends, one's own and those of others, for as long as the worker runs."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), FOLLOW_S)
            self._changed.clear()
            await self.halts.follow()
            if bool(self.halts.replaced) != self._suspended:
                await (self._resume() if self._suspended else self._suspend())
            if not self._suspended and "capture" in self._healths and _opened_tables(self._tables()) != self._captured:
                await self._capture_anew()

    async def _capture_anew(self) -> None:
        """Stop capture's application and start one for the collections that are in service now."""
        for app in [app for app in self._apps if app.conf.id == group_of("capture")]:
            self._apps.remove(app)
            await stop_apps([app], self._settings.worker.drain_s)
        self._runners[:] = [runner for runner in self._runners if runner.role != "capture"]
        self._captured = {}
        health = self._healths["capture"]
        health.busy_since_s = health.waiting_for = None
        app = self._add("capture", ())
        if app is not None:
            await start_apps([app])
        log.info("capture takes %d collections", len(self._captured))

    async def _suspend(self) -> None:
        """Stop every role that takes records from topics that may be others; questions are still answered."""
        self._suspended = True
        left = [app for app in self._apps if app.conf.id != group_of("query")]
        self._apps[:] = [app for app in self._apps if app not in left]
        self._runners[:] = [runner for runner in self._runners if runner.role == "query"]
        self._captured = {}
        await stop_apps(left, self._settings.worker.drain_s)
        for role in self._roles:
            if role.name != "query":
                self._note_suspended(role.name)
        log.error("no record is taken: %s; run: crossfade topics adopt", ", ".join(sorted(self.halts.replaced)))

    def _note_suspended(self, role: RoleName) -> None:
        health = self._healths.setdefault(role, RoleHealth(role))
        health.busy_since_s = None
        health.waiting_for = "a topic was replaced; run: crossfade topics adopt"

    async def _resume(self) -> None:
        """Go on, with the epochs that the adoption left."""
        self._epochs = await reachable_epochs(self._opened.collections, self._epochs)
        self._ctx = self._context()
        self._suspended = False
        begun = []
        for role in self._roles:
            if role.name != "query":
                self._healths[role.name].waiting_for = None
                begun.append(self._add(role.name, role.reads))
        await start_apps([app for app in begun if app is not None])
        log.info("the roles go on, with %s", self._epochs)

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
            "intake": partial(refused_submission, ctx=self._ctx),
            "resolver": partial(lost_entry, ctx=self._ctx),
            "legacy": partial(lost_write, collections=self._opened.collections, ctx=self._ctx),
            "embedder": partial(lost_resolved, store="qdrant", ctx=self._ctx),
            "vector": partial(lost_embedded, ctx=self._ctx),
            "query": partial(refused_question, ctx=self._ctx),
        }
        return lost.get(role, none)

    async def run(
        self, stop: asyncio.Event, ready: Callable[[int], None], failing: Callable[[], None] = lambda: None
    ) -> bool:
        """Consume until told to stop; `ready` is called with the port of the health page.

        `failing` is called before it stops by itself: what is stuck may keep it from ever returning.

        Returns False when a role is stuck or its agent ended by an error.
        """
        bounds = self._settings.worker
        healths = list(self._healths.values())
        site, self.port = await serve_health(
            healths, lambda: self._started, bounds.http_port, bounds.stall_s, lambda: self.halts.now
        )
        tasks: set[asyncio.Task[Any]] = set()
        try:
            await start_apps(self._apps)
            self._started = True
            ready(self.port)
            look = self._standing.look(healths, self.halts.now)
            work = (self._watch(), self._end(), self._follow(), look, *(lanes.watch() for lanes in self._lanes))
            tasks = {asyncio.create_task(each) for each in work}
            stopping = asyncio.create_task(stop.wait())
            done, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if done != {stopping}:
                failing()
            for task in done & tasks:
                task.result()  # an error of the watch itself is told
            tasks.add(stopping)
            return done == {stopping}
        finally:
            self._started = False
            for task in tasks:
                task.cancel()
            await stop_apps(self._apps, bounds.drain_s)
            await asyncio.gather(*(lanes.close() for lanes in self._lanes))
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
        """Return when a role is stuck: see `agents.watchdog`."""
        stall_s = self._settings.worker.stall_s
        watches: dict[Runner, CommitWatch] = {}
        awake = Awake(time.monotonic(), time.monotonic())
        while True:
            await asyncio.sleep(stall_s / 4)
            if not awake.looks(time.monotonic(), stall_s / 4):
                watches.clear()
            for lanes in self._lanes:
                if time.monotonic() - awake.since_s > stall_s and (why := lanes.stuck(stall_s, time.monotonic())):
                    log.error(why)
                    return
            for app, runner in list(zip(self._apps, self._runners, strict=False)):
                watch = watches.setdefault(runner, CommitWatch(runner.health, time.monotonic()))
                stuck = f"{runner.role} is stuck in one batch for more than {stall_s:.0f} s"
                now_s = time.monotonic()
                in_one = is_stuck(runner.health, stall_s, now_s) and now_s - awake.since_s > stall_s
                why = stuck if in_one else await self._behind(watch, app)
                if why is not None:
                    log.error(why)
                    return

    async def _behind(self, watch: CommitWatch, app: Any) -> str | None:
        role, kafka = watch.health.role, self._settings.kafka
        assigned = [(at.topic, at.partition) for at in app.consumer.assignment()] if app.consumer is not None else []
        topics = {topic for topic, _ in assigned}
        if not topics:
            return None
        try:
            lags = await group_lag(brokers_of(kafka), group_of(role), topics)
        except CrossfadeError:
            return None
        return watch.stuck(lags, assigned, time.monotonic(), self._settings.worker.stall_s)
