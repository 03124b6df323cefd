"""The lanes of a role, one for each collection: an unavailable database holds up only its own collections.

A batch is split by collection, and each part runs by itself. A part that does not end soon leaves the batch: its
collection is *parked*. For each partition, the first record of the collection that was not handled is remembered in
Kafka, before the role's own offset moves on. All later records of the collection are passed over. When the part has
ended, the lane reads the topic again from the remembered offsets. It takes only its own collection's records, in their
order, and rejoins the others when it has caught up. Nothing is copied, so offsets, and thus versions, do not change.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from agents.batch import Batch, Message
from agents.health import is_stuck
from agents.runner import RoleHealth, Runner
from connectors.errors import CrossfadeError, RecordsExpired
from connectors.kafka.reader import Chunk
from schemas.records import Received, TopicPartition

log = logging.getLogger("crossfade.agents")

# A part that waits for a store leaves the batch after WAITING_S, a part that is only slow after SLOW_S.
WAITING_S = 2.0
SLOW_S = 5.0
LOOK_S = 1.0
_POLL_S = 0.05
_PAUSE_S = 1.0


class Cursors(Protocol):
    """Where the parked collections of one role resume, remembered in Kafka."""

    async def load(self, names: Iterable[str]) -> dict[str, dict[TopicPartition, int]]:
        """Return the offsets at which parked collections resume. Raises StoreUnavailable."""
        ...

    async def committed(self) -> dict[TopicPartition, int]:
        """Return the offsets that the role itself committed. Raises StoreUnavailable."""
        ...

    async def park(self, name: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Remember where a collection resumes; return when that is stored. Raises StoreUnavailable."""
        ...

    async def unpark(self, name: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Forget where a collection resumes, for the given partitions. Raises StoreUnavailable."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


Rereading = Callable[[Mapping[TopicPartition, int]], AbstractAsyncContextManager[AsyncIterator[Chunk]]]
"""Reads partitions again, each from its offset. Raises RecordsExpired if an offset is no longer retained."""


@dataclass(frozen=True, slots=True)
class LanePorts:
    """The ports that lanes need.

    `configured` are the names of all collections, `opened` the names of the usable ones. `of` names the collection of a
    record, `received` makes a message from a record. `generation` changes with every assignment; `assigned` returns the
    assigned partitions. `parks`: a part that takes long leaves its batch; otherwise only collections that are not
    opened are passed over.
    """

    configured: Sequence[str]
    opened: Callable[[], Iterable[str]]
    runner: Callable[[], Runner]
    of: Callable[[Received], str]
    received: Callable[[Received], Message]
    cursors: Cursors
    reread: Rereading
    generation: Callable[[], int]
    assigned: Callable[[], set[TopicPartition]]
    parks: bool = True
    away: Callable[[str, str], None] = lambda _name, _why: None
    back: Callable[[str], None] = lambda _name: None
    expired: Callable[[str, str], None] = lambda _name, _why: None


@dataclass(slots=True, eq=False)
class _Lane:
    """One collection. `following`: where it resumes while it is parked; `passed`: the last offset passed over."""

    name: str
    runner: Runner
    following: dict[TopicPartition, int] = field(default_factory=dict)
    passed: dict[TopicPartition, int] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None
    keeping: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def parked(self) -> bool:
        return self.task is not None or bool(self.following)


class Lanes:
    """The lanes of one role. `health` is the health of the role itself, as the health page shows it."""

    def __init__(self, health: RoleHealth, ports: LanePorts) -> None:
        self._health, self._ports = health, ports
        self._lanes: dict[str, _Lane] = {}
        self._generation: int | None = None
        # Held while a batch is handled: parked collections change hands only between two batches.
        self._busy = asyncio.Lock()

    async def run(self, batch: Batch) -> None:
        """Handle a batch to its end, except for parked collections, whose resume offsets are stored when it returns."""
        async with self._busy:
            await self._follow()
            await self._run(batch)

    async def _run(self, batch: Batch) -> None:
        self._health.busy_since_s = time.monotonic()
        try:
            running = {}
            for name, messages in self._parts(batch).items():
                lane = self._lane(name)
                if lane.parked or self._absent(name):
                    await self._pass_over(lane, messages)
                else:
                    running[lane] = (asyncio.create_task(lane.runner.run(messages)), messages)
            await self._end(running)
        finally:
            self._health.busy_since_s = self._health.waiting_for = None
            self._health.finished_at_s = time.monotonic()

    def _parts(self, batch: Batch) -> dict[str, list[Message]]:
        alone = len(self._ports.configured) == 1 and not self._lanes_parked() and not self._absent_any()
        if alone:
            return {self._ports.configured[0]: list(batch)}
        parts: dict[str, list[Message]] = {}
        for message in batch:
            name = self._ports.of(message.record)
            # Records of no collection have a lane, too: their dead letters wait for no other lane.
            parts.setdefault(name if name in self._ports.configured else "", []).append(message)
        return parts

    def _lane(self, name: str) -> _Lane:
        if name not in self._lanes:
            self._lanes[name] = _Lane(name, self._ports.runner())
        return self._lanes[name]

    def _absent(self, name: str) -> bool:
        return bool(name) and name not in self._ports.opened()

    def _absent_any(self) -> bool:
        return any(self._absent(name) for name in self._ports.configured)

    def _lanes_parked(self) -> bool:
        return any(lane.parked for lane in self._lanes.values())

    async def _end(self, running: dict[_Lane, tuple[asyncio.Task[None], list[Message]]]) -> None:
        """Wait for the parts of a batch; park the ones that take too long, if there are others to go on with."""
        begun = time.monotonic()
        try:
            while left := {lane: each for lane, each in running.items() if not each[0].done()}:
                await asyncio.wait([task for task, _ in left.values()], timeout=_POLL_S)
                self._note([lane for lane, (task, _) in left.items() if not task.done()])
                for lane, (task, messages) in left.items():
                    if not task.done() and self._leaves(lane, time.monotonic() - begun):
                        await self._park(lane, task, messages)
                        del running[lane]
            for lane, (task, messages) in running.items():
                task.result()
                self._count(lane, len(messages))
        except BaseException:
            tasks = [task for task, _ in running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    def _leaves(self, lane: _Lane, after_s: float) -> bool:
        if not lane.name or not self._ports.parks or len(self._ports.configured) == 1:
            return False
        return after_s > (WAITING_S if lane.runner.health.waiting_for else SLOW_S)

    def _note(self, left: Sequence[_Lane]) -> None:
        """Show what the role waits for, if every remaining part waits for something."""
        reasons = [lane.runner.health.waiting_for for lane in left]
        self._health.waiting_for = reasons[0] if reasons and all(reasons) else None
        progress = [lane.runner.health.busy_since_s or 0.0 for lane in left]
        self._health.busy_since_s = max([self._health.busy_since_s or 0.0, *progress])

    def _count(self, lane: _Lane, messages: int) -> None:
        self._health.handled += messages
        self._health.dead_letters += lane.runner.health.dead_letters
        lane.runner.health.dead_letters = 0

    async def _park(self, lane: _Lane, task: asyncio.Task[None], messages: Sequence[Message]) -> None:
        """Let a part continue outside of its batch; the batch can be acknowledged when this returns."""
        firsts, after = _firsts(messages), _after(messages)
        lane.following, lane.passed = dict(firsts), {place: offset - 1 for place, offset in after.items()}
        self._start(lane, self._catch_up(lane, task, after))
        await self._keep(lane, firsts)
        log.warning("%s goes on without %s: %s", self._health.role, lane.name, lane.runner.health.waiting_for or "slow")
        self._show(lane)

    def _start(self, lane: _Lane, work: Coroutine[Any, Any, None]) -> None:
        lane.task = asyncio.create_task(work)
        lane.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """End the role as if an agent had raised; the resume offsets of parked collections stay stored."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s ended by an error of a lane", self._health.role, exc_info=error)
            self._health.ended_by = f"{type(error).__name__}: {error}"

    def _show(self, lane: _Lane) -> None:
        if lane.runner.health.waiting_for:
            self._ports.away(lane.name, f"{self._health.role}: {lane.runner.health.waiting_for}")

    async def _pass_over(self, lane: _Lane, messages: Sequence[Message]) -> None:
        """Leave the records of a parked collection to its lane; remember the first one of each partition."""
        news = {place: offset for place, offset in _firsts(messages).items() if place not in lane.following}
        for place, offset in _after(messages).items():
            lane.passed[place] = max(lane.passed.get(place, -1), offset - 1)
        lane.following |= news
        if news:
            await self._keep(lane, news)

    async def _keep(self, lane: _Lane, places: Iterable[TopicPartition]) -> None:
        """Remember where a lane resumes in some partitions.

        Each attempt takes the lane's current offsets, because the lane may have rejoined in the meantime.
        """
        wanted = set(places)
        while True:
            try:
                async with lane.keeping:
                    offsets = {place: at for place, at in lane.following.items() if place in wanted}
                    if offsets:
                        await self._ports.cursors.park(lane.name, offsets)
                return
            except CrossfadeError as error:
                self._health.waiting_for = f"{type(error).__name__}: {error}"
                await asyncio.sleep(_PAUSE_S)

    async def _catch_up(self, lane: _Lane, part: asyncio.Task[None], after: Mapping[TopicPartition, int]) -> None:
        """Wait for the part that left its batch, then handle the records passed over since."""
        try:
            await part
        except asyncio.CancelledError:
            part.cancel()
            await asyncio.gather(part, return_exceptions=True)
            raise
        self._count(lane, 0)
        lane.following |= after
        await self._keep(lane, after)
        await self._read_again(lane)

    async def _read_again(self, lane: _Lane) -> None:
        """Handle the records passed over, until the lane has caught up; runs as the lane's task."""
        while not self._rejoins(lane):
            try:
                async with self._ports.reread(dict(lane.following)) as chunks:
                    async for chunk in chunks:
                        own = [each for each in chunk.records if self._ports.of(each) == lane.name]
                        if own:
                            await self._handle(lane, own)
                        known = {place: at for place, at in chunk.following.items() if place in lane.following}
                        lane.following |= known
                        if self._rejoins(lane):
                            break
                        if known:
                            await self._keep(lane, known)
                        if lane.following.keys() - chunk.following.keys():
                            break  # a partition was added
            except RecordsExpired as error:
                self._ports.expired(lane.name, str(error))
                lane.following |= error.kept
            except CrossfadeError as error:
                log.warning("%s: %s cannot be read again now: %s", self._health.role, lane.name, error)
                await asyncio.sleep(_PAUSE_S)
        await self._rejoin(lane)

    async def _handle(self, lane: _Lane, records: Sequence[Received]) -> None:
        messages = [self._ports.received(record) for record in records]
        try:
            await lane.runner.run(messages)
        finally:
            for message in messages:
                message.trace.finish()
        self._count(lane, len(messages))

    @staticmethod
    def _rejoins(lane: _Lane) -> bool:
        return all(offset > lane.passed.get(place, -1) for place, offset in lane.following.items())

    async def _rejoin(self, lane: _Lane) -> None:
        """Rejoin the role's batches. Nothing is awaited until the lane is no longer parked."""
        following, lane.following, lane.passed, lane.task = lane.following, {}, {}, None
        log.warning("%s goes on with %s again", self._health.role, lane.name)
        self._ports.back(lane.name)
        while True:
            try:
                async with lane.keeping:
                    left = {place: at for place, at in following.items() if place not in lane.following}
                    await self._ports.cursors.unpark(lane.name, left)
                return
            except CrossfadeError:
                await asyncio.sleep(_PAUSE_S)

    async def watch(self) -> None:
        """Follow assignments and resume collections that can be used again, for as long as the worker runs."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._ports.assigned():
                async with self._busy:
                    await self._follow()
            for lane in list(self._lanes.values()):
                if lane.task is None and lane.following and not self._absent(lane.name):
                    self._start(lane, self._read_again(lane))
                elif lane.task is not None:
                    self._show(lane)

    async def _follow(self) -> None:
        """After a new assignment, resume from the offsets that are remembered for its partitions."""
        generation = self._ports.generation()
        if generation == self._generation:
            return
        await self._end_lanes()
        while True:
            try:
                found = await self._ports.cursors.load(self._ports.configured)
                committed = await self._ports.cursors.committed()
                break
            except CrossfadeError as error:
                self._health.waiting_for = f"{type(error).__name__}: {error}"
                await asyncio.sleep(_PAUSE_S)
        assigned = self._ports.assigned()
        for name, offsets in found.items():
            lane = self._lane(name)
            lane.following = {place: offset for place, offset in offsets.items() if place in assigned}
            # Records before the role's committed offset were passed over; the later ones are delivered.
            lane.passed = {place: committed.get(place, 0) - 1 for place in lane.following}
        self._generation = generation
        self._health.waiting_for = None

    def stuck(self, stall_s: float, now_s: float) -> str | None:
        """Return which lane is stuck in one part of a batch, None if none is."""
        for lane in self._lanes.values():
            if lane.task is not None and is_stuck(lane.runner.health, stall_s, now_s):
                return f"{self._health.role} is stuck with {lane.name} for more than {stall_s:.0f} s"
        return None

    def parked(self) -> set[str]:
        """Return the collections that are parked now."""
        return {lane.name for lane in self._lanes.values() if lane.parked}

    async def close(self) -> None:
        """End the work of the lanes; the resume offsets of parked collections stay stored."""
        await self._end_lanes()
        await self._ports.cursors.close()

    async def _end_lanes(self) -> None:
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        for lane in self._lanes.values():
            lane.task, lane.following, lane.passed = None, {}, {}


def _firsts(messages: Sequence[Message]) -> dict[TopicPartition, int]:
    """Return the first offset of each partition."""
    found: dict[TopicPartition, int] = {}
    for message in messages:
        place = (message.record.topic, message.record.partition)
        found[place] = min(found.get(place, message.record.offset), message.record.offset)
    return found


def _after(messages: Sequence[Message]) -> dict[TopicPartition, int]:
    """Return the offset after the last one of each partition."""
    found: dict[TopicPartition, int] = {}
    for message in messages:
        place = (message.record.topic, message.record.partition)
        found[place] = max(found.get(place, 0), message.record.offset + 1)
    return found
