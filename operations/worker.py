"""Runs a worker in this process until a signal: opens everything, reports when it is ready, drains and closes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from agents.conductor import ConductorParts
from agents.worker import Worker
from connectors.addresses import brokers_of
from connectors.errors import Misconfigured, StoreUnavailable
from connectors.failpoints import FILE, arm, rearm
from connectors.gc_tuning import collect_rarely
from connectors.kafka.reader import read_topic
from connectors.kafka.transactions import TransactionalBus
from connectors.telemetry import Telemetry
from migration.capture.connectors import prepare_capture
from migration.context import now_ms
from migration.opener import Opened, open_all
from migration.preflight.tables import check_tables, prepare_topics
from migration.quarantine import Quarantines
from migration.rollout.evidence import Examiner
from migration.rollout.guard import GuardRunner
from migration.rollout.journal import TRANSACTIONAL_ID, Journal
from migration.rollout.states import RolloutStates, check_phases, follow_states, read_states
from migration.rollout.traffic import TrafficView
from migration.watch.capture import guard_capture
from migration.watch.databases import bring_back, stop_those, tables_found, usable
from migration.watch.layouts import watch_layouts
from migration.watch.points import compare_points, watch_points
from migration.watch.topics import compare_topics, watch_topics
from operations.context import USAGE_ERROR
from operations.errors import CommandError
from operations.observability import set_up, shut_down
from schemas.settings import Settings
from stack.layout import write_private
from topics.roles import RoleName

Progress = Callable[[str], None]
# New objects before the youngest generation is garbage-collected; Python's default is 700.
_GARBAGE_OBJECTS = 20_000
# How long closing may take, in addition to draining, in a worker that is stuck.
_END_BOUND_S = 5.0
_PARENT_POLL_S = 0.5
_WAIT_S = 1.0
_WAIT_MAX_S = 10.0
log = logging.getLogger("crossfade.worker")
T = TypeVar("T")


async def run_worker(
    settings: Settings,
    home: Path,
    roles: Sequence[RoleName],
    progress: Progress,
    ready_file: Path | None = None,
    supervisor: int | None = None,
) -> None:
    """Prepare, consume until SIGTERM or SIGINT, then drain. Raises CommandError if the watchdog found a role stuck.

    Once every agent consumes, the port of the health page is written as JSON to `ready_file`, for the process that
    started this one. With the pid of a `supervisor`, the worker also drains when that process is no longer its parent.
    """
    # Faust's consumers run on threads, and this policy decides the kind of their event loops.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    for place in arm(os.environ):
        progress(f"the failpoint {place} is armed")
    if FILE in os.environ:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, rearm, Path(os.environ[FILE]))
    orphaned = asyncio.create_task(_stop_without(supervisor, stop)) if supervisor is not None else None
    try:
        await _run(settings, home, roles, progress, ready_file, stop, waits=supervisor is not None)
    finally:
        if orphaned is not None:
            orphaned.cancel()
        await asyncio.to_thread(shut_down)


async def _run(
    settings: Settings,
    home: Path,
    roles: Sequence[RoleName],
    progress: Progress,
    ready_file: Path | None,
    stop: asyncio.Event,
    *,
    waits: bool,
) -> None:
    telemetry = set_up(os.environ)
    try:
        prepared = await _unless(stop, _patiently(lambda: _prepared(settings, home, roles, telemetry, progress), waits))
    except Misconfigured as error:
        # A restart would change nothing. The supervisor recognizes this by the exit code.
        raise CommandError(
            str(error), "Look at everything that is configured: crossfade config check", USAGE_ERROR
        ) from None
    if prepared is None:
        progress("stopped before the worker was ready")
        return
    opened, quarantines, states = prepared
    collect_rarely(_GARBAGE_OBJECTS)

    def ready(port: int) -> None:
        progress(f"worker is ready: {', '.join(roles)}; health page http://127.0.0.1:{port}/readyz")
        if ready_file is not None:
            write_private(ready_file, json.dumps({"port": port, "pid": os.getpid()}))

    try:
        conducts = "conductor" in roles
        traffic = TrafficView(brokers_of(settings.kafka), states, settings.collections)
        bus = TransactionalBus(brokers_of(settings.kafka), TRANSACTIONAL_ID)
        examiner = Examiner(settings, traffic, now_ms)
        parts = ConductorParts(Journal(bus, partial(read_topic, brokers_of(settings.kafka))), examiner.judge)
        worker = Worker(opened, roles, home, telemetry, quarantines, parts if conducts else None)
        captures = "capture" in roles
        guards = [_ending(watch_topics(opened.settings.kafka, worker.quarantines, worker.changed), stop)]
        guards.append(_ending(watch_layouts(opened, worker.quarantines, worker.changed), stop))
        guards.append(_ending(follow_states(brokers_of(settings.kafka), states, opened.collections), stop))
        if conducts:
            guards.append(_ending(traffic.follow(), stop))
            guards.append(_ending(worker.begin_rollouts(), stop))
            runner = GuardRunner(settings.collections, states, traffic, examiner, opened.bus, worker.context)
            guards.append(_ending(runner.run(), stop))
        if captures:
            guards.append(_ending(guard_capture(opened, worker.quarantines, worker.changed), stop))
        if "vector" in roles:
            guards.append(_ending(watch_points(worker.quarantines, worker.written, worker.changed), stop))
        back = asyncio.create_task(bring_back(settings, opened, quarantines, captures, worker.changed, progress))
        try:
            healthy = await worker.run(stop, ready, partial(_end_within, settings.worker.drain_s + _END_BOUND_S))
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
        for guard in guards:
            await _end(guard)
    finally:
        await bus.close()
        await opened.close()
    if not healthy:
        raise CommandError("a role was stuck; the worker ended so that it can be started again")
    progress("worker drained and stopped")


def _ending(watch: Coroutine[Any, Any, None], stop: asyncio.Event) -> asyncio.Task[None]:
    """Run a watch for as long as the worker runs. If the watch ends with an error, the worker drains."""
    guard = asyncio.create_task(watch)
    guard.add_done_callback(lambda _: stop.set())
    return guard


async def _end(guard: asyncio.Task[None]) -> None:
    """End a watch. Raises CommandError, with the exit code of a usage error, if it had failed as Misconfigured."""
    guard.cancel()
    try:
        await guard
    except asyncio.CancelledError:
        return
    except Misconfigured as error:
        raise CommandError(str(error), "Restore it, then start the worker again.", USAGE_ERROR) from None


async def _patiently(prepare: Callable[[], Coroutine[Any, Any, T]], waits: bool) -> T:
    """Call `prepare`. With `waits`, retry it while a store or a broker does not answer."""
    pause_s = _WAIT_S
    while True:
        try:
            return await prepare()
        except StoreUnavailable as error:
            if not waits:
                raise
            log.warning("the worker waits to start: %s", error)
        await asyncio.sleep(pause_s)
        pause_s = min(_WAIT_MAX_S, 2 * pause_s)


async def _stop_without(supervisor: int, stop: asyncio.Event) -> None:
    """Set `stop` when the supervisor has ended: the supervisor that replaces it starts a worker of its own."""
    while os.getppid() == supervisor:  # noqa: ASYNC110 - this loop gets no event when another process ends
        await asyncio.sleep(_PARENT_POLL_S)
    # Nobody reads the output of this process any more, and writing it would raise an error.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    stop.set()


async def _prepared(
    settings: Settings, home: Path, roles: Sequence[RoleName], telemetry: Telemetry, progress: Progress
) -> tuple[Opened, Quarantines, RolloutStates]:
    mistakes, away = await tables_found(settings, progress)
    if len(mistakes) == len(settings.collections):
        await check_tables(settings, progress, apply=False)  # raises with the mistakes: no collection is usable
    await prepare_topics(settings, progress)
    states = await read_states(brokers_of(settings.kafka))
    check_phases(settings.collections, states)
    names = usable(settings, mistakes, away)
    if not names:
        raise StoreUnavailable("; ".join(f"{name}: {why}" for name, why in {**away, **mistakes}.items()))
    opened = await open_all(settings, home, progress, names=names, states=states)
    try:
        quarantines = Quarantines(opened.collections, telemetry, settings.collections, kafka=settings.kafka)
        for quarantine in opened.quarantines.values():
            quarantines.known(quarantine)
        stop_those(quarantines, mistakes, {**away, **opened.away})
        await compare_topics(settings.kafka, quarantines)
        if "vector" in roles:
            await compare_points(quarantines)
        if "capture" in roles:
            await prepare_capture(opened, quarantines, progress)
    except BaseException:
        await opened.close()
        raise
    return opened, quarantines, states


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what the work returns. If `stop` comes first, cancel the work, wait for its end and return None."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


def _end_within(limit_s: float) -> None:
    """End this process after `limit_s`, even if something in it hangs: the supervisor waits for its end."""
    timer = threading.Timer(limit_s, os._exit, (1,))
    timer.daemon = True
    timer.start()
