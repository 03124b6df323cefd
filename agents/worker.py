"""A worker: the agents of some roles in one process, with a health page and a watchdog. Ends on request or if stuck."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from agents.batch import Batch
from agents.conductor import ConductorParts, begin
from agents.faust_apps import Bounds, add_batch_agent, add_concurrent_agent, make_app, start_apps, stop_apps
from agents.health import is_stuck, serve_health
from agents.lane_wiring import lanes_of
from agents.lanes import Lanes
from agents.runner import Handler, Retry, RoleHealth, Runner
from agents.status_reporter import StatusReporter
from agents.watchdog import Awake, CommitWatch
from agents.wiring import AGENTS, Agent, Parts
from connectors.addresses import brokers_of
from connectors.errors import CrossfadeError
from connectors.kafka.offsets import group_lag
from connectors.ports import LegacyTable
from connectors.telemetry import Telemetry
from domain.positions import StreamPlaces
from domain.quarantine import Quarantine, Reason
from migration.collection import CollectionPorts
from migration.context import HandlerContext, now_ms
from migration.epochs import reachable_epochs
from migration.opener import Opened
from migration.quarantine import Quarantines
from migration.witnesses import Written
from search.breakers import Breakers
from search.shadow import ShadowReads
from topics.catalogue import group_of
from topics.roles import BY_NAME, ROLES, RoleName

log = logging.getLogger("crossfade.worker")
END_POLL_S = 0.5
# How soon a worker notices that another process quarantined or fixed a collection.
FOLLOW_S = 2.0
# Every so many looks, the states in the topic are compared with the known ones, and the copies in the databases.
_JOURNAL_LOOKS = 15
_CAPTURE = BY_NAME["capture"]
# The groups of the roles outside of the pipeline: they go on while no document is taken.
_OUTSIDE: dict[str, str] = {role.name: role.group for role in ROLES if not role.stage}


def _opened_tables(captured: Mapping[str, CollectionPorts]) -> dict[str, LegacyTable]:
    return {topic: ports.table for topic, ports in captured.items()}


class Worker:
    """The agents of the given roles over the opened ports."""

    def __init__(
        self,
        opened: Opened,
        roles: Sequence[RoleName],
        home: Path,
        telemetry: Telemetry,
        quarantines: Quarantines | None = None,
        conductor: ConductorParts | None = None,
    ) -> None:
        self._opened = opened
        self._settings = opened.settings
        self._telemetry = telemetry
        self._epochs = opened.epochs
        self._ctx = self._context()
        self._status = StatusReporter(opened.bus, self._ctx)
        self._home = home
        self._conductor = conductor
        self._apps: list[Any] = []
        self._runners: list[Runner] = []
        self._healths: dict[RoleName, RoleHealth] = {}
        self._captured: dict[str, LegacyTable] = {}
        self._places = StreamPlaces()
        self._lanes: list[Lanes] = []
        self._stops: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._started = False
        self.quarantines = quarantines or Quarantines(opened.collections, telemetry, kafka=opened.settings.kafka)
        self.port = 0
        self.written = Written()
        self._agents = [agent for agent in AGENTS if agent.name in roles]
        self._breakers = Breakers(opened.settings.routing, self._status.report)
        self._shadow = ShadowReads(opened.bus, self._ctx, self._breakers)
        self._suspended = bool(self.quarantines.replaced)
        for agent in self._agents:
            if self._suspended and agent.role.stage:
                self._note_suspended(agent)
            else:
                self._add(agent)

    def _context(self) -> HandlerContext:
        epochs, kafka = self._epochs, self._settings.kafka
        return HandlerContext(now_ms, epochs.version, self._telemetry, kafka.max_text_bytes, kafka, epochs.producer)

    def context(self) -> HandlerContext:
        """Return the present context: an adoption of topics replaces it."""
        return self._ctx

    def _add(self, agent: Agent) -> Any:
        """Make the application of an agent; for capture, make none if there is no collection to capture."""
        bounds = self._settings.worker
        health = self._healths.setdefault(agent.name, RoleHealth(agent.name))
        tables = self._tables() if not agent.role.reads else {}
        topics = agent.role.topics(tables)
        if not topics:
            return None
        parts = self._parts(health, tables)
        handler = agent.handler(parts)
        runner = self._runner(agent, parts, handler, health)
        of_batch = Bounds(bounds.batch, bounds.batch_bytes, bounds.batch_interval_ms / 1000)
        app = make_app(agent.name, self._settings.kafka, self._home / "faust", of_batch)
        if agent.concurrent:
            in_flight = Bounds(bounds.queries_in_flight, bounds.batch_bytes)
            add_concurrent_agent(app, topics, runner, self._telemetry, in_flight)
        else:
            lanes = self._laned(agent, app, health, partial(self._runner, agent, parts, handler))
            add_batch_agent(app, topics, runner, self._telemetry, of_batch, lanes)
        self._apps.append(app)
        self._runners.append(runner)
        if tables:
            self._captured = _opened_tables(tables)
        return app

    def _parts(self, health: RoleHealth, tables: Mapping[str, CollectionPorts]) -> Parts:
        return Parts(
            self._opened.collections,
            self._opened.bus,
            self._ctx,
            health,
            tables,
            self._places,
            self._unreadable,
            self._breakers,
            self._stopped,
            self.written.note,
            self._shadow.offer,
            self._conductor,
        )

    def _runner(self, agent: Agent, parts: Parts, handler: Handler, health: RoleHealth) -> Runner:
        bounds = self._settings.worker
        runner = Runner(
            agent.name,
            handler,
            agent.lost(parts),
            parts.bus,
            parts.ctx,
            Retry(bounds.retry_attempts, bounds.retry_max_s),
            gives_up=agent.gives_up,
            waits_for_rights=agent.parks,
            kept=health,
        )
        if agent.on_dead_letter is not None:
            runner.on_dead_letter = agent.on_dead_letter(parts)
        return runner

    def _laned(
        self, agent: Agent, app: Any, health: RoleHealth, runner: Callable[[RoleHealth], Runner]
    ) -> Callable[[Batch], Awaitable[None]] | None:
        """Return the function that handles an agent's batches in lanes, None for an agent without lanes."""
        if agent.collection_of is None:
            return None
        opened, quarantines, whose = self._opened, self.quarantines, agent.collection_of
        lanes = lanes_of(agent, whose, app, health, runner, opened, quarantines, self._telemetry, self._expired)
        self._lanes.append(lanes)
        return lanes.run

    def _expired(self, name: str, detail: str) -> None:
        """Quarantine a collection that was unavailable for longer than its records are retained."""
        task = asyncio.create_task(self.quarantines.quarantine(name, Reason.CAPTURE_LOST, detail))
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)

    def _stopped(self, name: str) -> Quarantine | None:
        """Return why Qdrant may lack changes of a collection, None if it lacks none.

        An unreachable database is no such reason: Qdrant alone can answer then.
        """
        quarantine = self.quarantines.of(name)
        return None if quarantine is not None and quarantine.reason is Reason.UNREACHABLE else quarantine

    def _tables(self) -> dict[str, CollectionPorts]:
        """Return the collections whose captured changes are taken, by topic."""
        return {
            ports.capture.topic: ports
            for name, ports in self._opened.collections.items()
            if ports.capture is not None and ((quarantine := self.quarantines.of(name)) is None or quarantine.captures)
            if not self.quarantines.holds_capture(name)
        }

    async def _unreadable(self, name: str, reason: Reason, detail: str) -> None:
        """Quarantine a collection. Never returns: this call is cancelled with its application, not acknowledged."""
        await self.quarantines.quarantine(name, reason, detail)
        self._changed.set()
        await asyncio.Event().wait()

    def changed(self) -> None:
        """Signal that `quarantines` changed, so that capture drops quarantined collections and takes fixed ones."""
        self._changed.set()

    async def _follow(self) -> None:
        """Follow quarantines and fixes, by this worker and by others, for as long as the worker runs."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), FOLLOW_S)
            self._changed.clear()
            await self.quarantines.follow()
            if bool(self.quarantines.replaced) != self._suspended:
                await (self._resume() if self._suspended else self._suspend())
            takes_captured = not self._suspended and _CAPTURE.name in self._healths
            if takes_captured and _opened_tables(self._tables()) != self._captured:
                await self._capture_again()

    async def _capture_again(self) -> None:
        """Stop capture's application and start one for the collections whose changes are taken now."""
        for app in [app for app in self._apps if app.conf.id == _CAPTURE.group]:
            self._apps.remove(app)
            await stop_apps([app], self._settings.worker.drain_s)
        self._runners[:] = [runner for runner in self._runners if runner.role != _CAPTURE.name]
        self._captured = {}
        health = self._healths[_CAPTURE.name]
        health.busy_since_s = health.waiting_for = None
        app = self._add(next(agent for agent in self._agents if agent.role is _CAPTURE))
        if app is not None:
            await start_apps([app])
        log.info("capture takes %d collections", len(self._captured))

    async def begin_rollouts(self) -> None:
        """Begin the rollouts that have not begun, restore the ones that were lost, keep their copies. Never returns."""
        begun: set[str] = set()
        looks = 0
        while self._conductor is not None:
            looks += 1
            try:
                if looks % _JOURNAL_LOOKS == 0:
                    await self._conductor.journal.check()
                    begun.clear()
                left = [ports for name, ports in self._opened.collections.items() if name not in begun]
                begun |= await begin(left, self._conductor.journal, self._ctx) if left else set()
            except CrossfadeError as error:
                log.warning("rollouts cannot begin yet: %s", error)
            except Exception:  # documents and questions go on
                log.exception("rollouts cannot begin yet")
            await asyncio.sleep(FOLLOW_S)

    async def _suspend(self) -> None:
        """Stop every role that reads topics that may have been replaced; questions and commands are still taken."""
        self._suspended = True
        left = [app for app in self._apps if app.conf.id not in _OUTSIDE.values()]
        self._apps[:] = [app for app in self._apps if app not in left]
        self._runners[:] = [runner for runner in self._runners if runner.role in _OUTSIDE]
        self._captured = {}
        await stop_apps(left, self._settings.worker.drain_s)
        for agent in self._agents:
            if agent.role.stage:
                self._note_suspended(agent)
        log.error("no record is taken: %s; run: crossfade topics adopt", ", ".join(sorted(self.quarantines.replaced)))

    def _note_suspended(self, agent: Agent) -> None:
        health = self._healths.setdefault(agent.name, RoleHealth(agent.name))
        health.busy_since_s = None
        health.waiting_for = "a topic was replaced; run: crossfade topics adopt"

    async def _resume(self) -> None:
        """Start the roles again, with the epochs that the adoption left."""
        self._epochs = await reachable_epochs(self._opened.collections, self._epochs)
        self._ctx = self._context()
        self._suspended = False
        begun = []
        for agent in self._agents:
            if agent.role.stage:
                self._healths[agent.name].waiting_for = None
                begun.append(self._add(agent))
        await start_apps([app for app in begun if app is not None])
        log.info("the roles go on, with %s", self._epochs)

    async def run(
        self, stop: asyncio.Event, ready: Callable[[int], None], failing: Callable[[], None] = lambda: None
    ) -> bool:
        """Consume until `stop` is set; call `ready` with the port of the health page.

        `failing` is called before the worker stops by itself: whatever is stuck may keep this from ever returning.

        Return False when a role is stuck or its agent ended with an error.
        """
        bounds = self._settings.worker
        healths = list(self._healths.values())
        site, self.port = await serve_health(
            healths, lambda: self._started, bounds.http_port, bounds.stall_s, lambda: self.quarantines.now
        )
        tasks: set[asyncio.Task[Any]] = set()
        try:
            await start_apps(self._apps)
            self._started = True
            ready(self.port)
            look = self._status.look(healths, self.quarantines.now)
            work = (self._watch(), self._end(), self._follow(), look, *(lanes.watch() for lanes in self._lanes))
            tasks = {asyncio.create_task(each) for each in work}
            stopping = asyncio.create_task(stop.wait())
            done, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if done != {stopping}:
                failing()
            for task in done & tasks:
                task.result()  # raises an error of the watch itself
            tasks.add(stopping)
            return done == {stopping}
        finally:
            self._started = False
            for task in tasks:
                task.cancel()
            await stop_apps(self._apps, bounds.drain_s)
            await self._shadow.close()
            await asyncio.gather(*(lanes.close() for lanes in self._lanes))
            await site.cleanup()

    async def _end(self) -> None:
        """Return when an agent, or what Faust runs under it, ended with an error: it consumes nothing any more."""
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
        kafka = self._settings.kafka
        assigned = [(at.topic, at.partition) for at in app.consumer.assignment()] if app.consumer is not None else []
        topics = {topic for topic, _ in assigned}
        if not topics:
            return None
        try:
            lags = await group_lag(brokers_of(kafka), group_of(watch.health.role), topics)
        except CrossfadeError:
            return None
        return watch.stuck(lags, assigned, time.monotonic(), self._settings.worker.stall_s)
