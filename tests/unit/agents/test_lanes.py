"""A collection whose database is away holds up no other. It later gets each missed record in order, despite crashes."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest

from agents import lanes as under_test
from agents.batch import Batch, Failures, Message
from agents.lanes import LanePorts, Lanes
from agents.runner import Retry, RoleHealth, Runner
from agents.selection import named_by_key, submitted_to
from connectors.errors import Misconfigured, RecordsExpired, StoreUnavailable
from connectors.kafka.consumer import PASSED_OVER
from connectors.kafka.reader import Chunk
from schemas.records import Received, TopicPartition
from tests.unit.agents.parts import World
from topics.catalogue import LOG

NAMES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {
        "WAITING_S": 0.02,
        "SLOW_S": 0.05,
        "LOOK_S": 0.01,
        "_POLL_S": 0.005,
        "_PAUSE_S": 0.01,
    }.items():
        monkeypatch.setattr(under_test, name, seconds)


@dataclass
class Broker:
    """A topic of two partitions, the role's offsets, and the parked offsets: all that outlives a worker."""

    log: dict[int, list[Received]] = field(default_factory=lambda: {0: [], 1: []})
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    parked: dict[str, dict[TopicPartition, int]] = field(default_factory=lambda: defaultdict(dict))
    first_kept: int = 0

    def append(self, name: str, partition: int) -> None:
        offset = len(self.log[partition])
        self.log[partition].append(Received(LOG, partition, offset, f"{name}/{offset}".encode(), b"{}"))

    def batch(self, limit: int) -> list[Message]:
        """Return the records that a role reads next."""
        found: list[Message] = []
        for partition, records in self.log.items():
            found += [Message(record) for record in records[self.committed.get((LOG, partition), 0) :][:limit]]
        return found

    def commit(self, batch: Batch) -> None:
        for message in batch:
            self.committed[LOG, message.record.partition] = message.record.offset + 1


class MemoryCursors:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.fails = 0

    def _call(self) -> None:
        if self.fails:
            self.fails -= 1
            raise StoreUnavailable("the brokers do not answer")

    async def load(self, names: Iterable[str]) -> dict[str, dict[TopicPartition, int]]:
        self._call()
        await asyncio.sleep(0)
        return {name: dict(self._broker.parked[name]) for name in names if self._broker.parked[name]}

    async def committed(self) -> dict[TopicPartition, int]:
        return dict(self._broker.committed)

    async def park(self, name: str, offsets: Mapping[TopicPartition, int]) -> None:
        self._call()
        await asyncio.sleep(0)
        self._broker.parked[name] |= offsets

    async def unpark(self, name: str, offsets: Mapping[TopicPartition, int]) -> None:
        self._call()
        await asyncio.sleep(0)
        for place in offsets:
            self._broker.parked[name].pop(place, None)

    async def close(self) -> None:
        return None


@dataclass
class Role:
    """A worker's role over the broker, and the databases of its collections."""

    broker: Broker
    away: dict[str, Exception] = field(default_factory=dict)
    opened: set[str] = field(default_factory=lambda: set(NAMES))
    applied: dict[str, dict[int, list[int]]] = field(default_factory=lambda: defaultdict(lambda: {0: [], 1: []}))
    generation: int = 1
    reported: list[str] = field(default_factory=list)
    world: World = field(default_factory=World)
    hang: set[str] = field(default_factory=set)

    def start(self) -> Lanes:
        self.cursors = MemoryCursors(self.broker)
        ports = LanePorts(
            NAMES,
            lambda: self.opened,
            self._runner,
            named_by_key,
            Message,
            self.cursors,
            self._reread,
            lambda: self.generation,
            lambda: {(LOG, 0), (LOG, 1)},
            away=lambda name, _: self.reported.append(f"away {name}"),
            back=lambda name: self.reported.append(f"back {name}"),
            expired=lambda name, _: self.reported.append(f"expired {name}"),
        )
        return Lanes(RoleHealth("resolver"), ports)

    def _runner(self) -> Runner:
        retry = Retry(2, 0.005, 0.001)
        return Runner("resolver", self._handle, lambda _m, _e: [], self.world.bus, self.world.ctx, retry,
                      gives_up=False, waits_for_rights=True)  # fmt: skip

    async def _handle(self, batch: Batch) -> Failures:
        names = {named_by_key(message.record) for message in batch}
        await asyncio.sleep(0)
        while names & self.hang:  # noqa: ASYNC110 - like a database that does not answer
            await asyncio.sleep(0.001)
        for name in names & self.away.keys():
            raise self.away[name]
        for message in batch:
            self._apply(named_by_key(message.record), message.record)
        return []

    def _apply(self, name: str, record: Received) -> None:
        """Apply a record. It may be a second delivery, but earlier ones of its collection must be applied before it."""
        done = self.applied[name][record.partition]
        own = [each.offset for each in self.broker.log[record.partition] if named_by_key(each) == name]
        before = [offset for offset in own if offset < record.offset]
        assert set(before) <= set(done), f"{name}: {record.offset} before {sorted(set(before) - set(done))}"
        done.append(record.offset)

    @asynccontextmanager
    async def _reread(self, starts: Mapping[TopicPartition, int]) -> AsyncIterator[AsyncIterator[Chunk]]:
        gone = {place: self.broker.first_kept for place, at in starts.items() if at < self.broker.first_kept}
        if gone:
            raise RecordsExpired("gone", gone)
        yield self._chunks(dict(starts))

    async def _chunks(self, following: dict[TopicPartition, int]) -> AsyncIterator[Chunk]:
        while True:
            records: list[Received] = []
            for (topic, partition), at in following.items():
                found = self.broker.log[partition][at : at + 3]
                records += found
                following[topic, partition] = at + len(found)
            yield Chunk(records, dict(following))
            await asyncio.sleep(0.001)

    def missing(self) -> dict[str, int]:
        """Return how many records of each collection were never applied."""
        left = dict.fromkeys(NAMES, 0)
        for partition, records in self.broker.log.items():
            for record in records:
                name = named_by_key(record)
                left[name] += record.offset not in self.applied[name][partition]
        return left


async def step(lanes: Lanes, broker: Broker, limit: int = 4) -> None:
    batch = broker.batch(limit)
    if batch:
        await lanes.run(batch)
        broker.commit(batch)


async def settled(lanes: Lanes, role: Role) -> None:
    async with asyncio.timeout(10):
        while lanes.parked() or role.broker.batch(1):
            await step(lanes, role.broker)
            await asyncio.sleep(0.005)


async def forgotten(role: Role, name: str) -> None:
    """Wait until the parked offsets of a collection are removed, which happens a moment after it is back."""
    async with asyncio.timeout(5):
        while role.broker.parked[name]:  # noqa: ASYNC110 - the collection's lane does it
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("error", [StoreUnavailable("down"), Misconfigured("28P01: password")])
async def test_the_others_go_on_while_a_database_is_away_and_it_catches_up_by_itself(error: Exception) -> None:
    role = Role(Broker())
    lanes = role.start()
    watch = asyncio.create_task(lanes.watch())
    for n in range(30):
        role.broker.append(NAMES[n % 3], n % 2)
    role.away["a"] = error
    async with asyncio.timeout(5):
        while role.broker.batch(1):
            await step(lanes, role.broker)
    assert role.missing() == {"a": 10, "b": 0, "c": 0}
    assert lanes.parked() == {"a"}
    assert role.reported[0] == "away a"
    del role.away["a"]
    await settled(lanes, role)
    assert role.missing() == {"a": 0, "b": 0, "c": 0}
    assert role.reported[-1] == "back a"
    await forgotten(role, "a")
    role.broker.append("a", 0)
    await step(lanes, role.broker)
    assert role.missing()["a"] == 0
    watch.cancel()
    await lanes.close()


async def test_a_part_that_only_takes_long_leaves_its_batch_and_is_not_done_again() -> None:
    role = Role(Broker())
    lanes = role.start()
    for name in ("a", "b"):
        role.broker.append(name, 0)
    role.hang.add("a")
    await step(lanes, role.broker)
    assert (role.missing()["a"], role.missing()["b"]) == (1, 0)
    role.hang.clear()
    await settled(lanes, role)
    assert role.applied["a"][0] == [0]
    assert role.reported == ["back a"]
    await lanes.close()


async def test_a_lane_never_remembers_a_place_that_it_has_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The brokers do not answer when the lane's part leaves the batch. When they do, it has rejoined the others."""
    monkeypatch.setattr(under_test, "_PAUSE_S", 0.2)
    role = Role(Broker())
    lanes = role.start()
    role.broker.append("b", 0)
    await step(lanes, role.broker)
    role.broker.append("a", 0)
    role.hang.add("a")
    role.cursors.fails = 1
    running = asyncio.create_task(step(lanes, role.broker))
    async with asyncio.timeout(5):
        while role.cursors.fails:  # noqa: ASYNC110 - the lane calls the brokers when its part has left
            await asyncio.sleep(0.001)
        role.hang.clear()
        while "back a" not in role.reported:  # noqa: ASYNC110 - the collection's lane does it
            await asyncio.sleep(0.001)
        assert not running.done()
        await running
    assert role.applied["a"][0] == [1]
    await forgotten(role, "a")  # or the next worker would handle it again
    await lanes.close()


async def test_a_collection_that_was_never_opened_is_passed_over_and_not_lost() -> None:
    role = Role(Broker(), opened={"a", "b"})
    lanes = role.start()
    watch = asyncio.create_task(lanes.watch())
    for n in range(9):
        role.broker.append(NAMES[n % 3], 0)
    while role.broker.batch(1):
        await step(lanes, role.broker)
    assert role.missing() == {"a": 0, "b": 0, "c": 3}
    role.opened.add("c")
    await settled(lanes, role)
    assert role.missing()["c"] == 0
    watch.cancel()
    await lanes.close()


async def test_records_that_expired_meanwhile_are_reported() -> None:
    role = Role(Broker(), away={"a": StoreUnavailable("down")})
    lanes = role.start()
    for _ in range(4):
        role.broker.append("a", 0)
    await step(lanes, role.broker)
    await lanes.close()
    role.broker.first_kept = 2
    role.applied["a"][0] = [0, 1]
    role.away.clear()
    again = role.start()
    watch = asyncio.create_task(again.watch())
    async with asyncio.timeout(5):
        while role.missing()["a"]:  # noqa: ASYNC110 - the collection's lane does it
            await asyncio.sleep(0.005)
    assert "expired a" in role.reported
    watch.cancel()
    await again.close()


async def one_history(seed: int) -> None:
    """Run writes, outages, kills, rebalances and brokers that do not answer, in random order."""
    chance = random.Random(seed)
    role = Role(Broker())
    lanes = role.start()
    watch = asyncio.create_task(lanes.watch())
    for _ in range(40):
        for _ in range(chance.randrange(6)):
            role.broker.append(chance.choice(NAMES), chance.randrange(2))
        name = chance.choice(NAMES)
        match chance.randrange(9):
            case 0 | 1:
                role.away[name] = chance.choice([StoreUnavailable("down"), Misconfigured("no right")])
            case 2 | 3:
                role.away.pop(name, None)
            case 4:
                role.cursors.fails = chance.randrange(3)
            case 5:
                role.generation += 1
            case 6:
                watch.cancel()
                await lanes.close()
                lanes = role.start()
                watch = asyncio.create_task(lanes.watch())
            case 7:
                (role.opened.discard if chance.random() < 0.5 else role.opened.add)(name)
        batch = role.broker.batch(chance.randrange(1, 5))
        if batch and chance.random() < 0.1:  # killed in the middle
            running = asyncio.create_task(lanes.run(batch))
            await asyncio.sleep(chance.random() * 0.03)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            watch.cancel()
            await lanes.close()
            lanes = role.start()
            watch = asyncio.create_task(lanes.watch())
        elif batch and len({n for m in batch if (n := named_by_key(m.record)) in role.away}) < len(NAMES):
            async with asyncio.timeout(5):
                await lanes.run(batch)
            role.broker.commit(batch)
    role.away.clear()
    role.opened |= set(NAMES)
    await settled(lanes, role)
    assert role.missing() == {"a": 0, "b": 0, "c": 0}
    watch.cancel()
    await lanes.close()


async def test_every_record_is_applied_in_order_over_random_histories() -> None:
    for seed in range(12):
        await one_history(seed)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_every_record_is_applied_in_order_over_many_random_histories() -> None:
    for seed in range(100, 600):
        await one_history(seed)


@pytest.mark.parametrize(
    ("record", "name"),
    [
        (Received(LOG, 0, 0, b"k", b'{"collection": "a", "id": "1"}'), "a"),
        (Received(LOG, 0, 0, b"b/1", None), "b"),
        (Received(LOG, 0, 0, b"b/1", b"not json"), ""),
        (Received(LOG, 0, 0, None, b'{"id": "1"}'), ""),
        (Received(LOG, 0, 0, b"\xff", None), ""),
        (Received(LOG, 0, 0, b"a/1", b'{"collection": "a", "more": ' + b"[" * 1000 + b"]" * 1000 + b"}"), ""),
        (Received(LOG, 0, 0, None, cast(bytes, PASSED_OVER)), ""),
    ],
    ids=["event", "deletion", "no JSON", "no collection", "no text", "nested", "no value to decode"],
)
def test_a_producers_record_is_of_the_collection_that_it_names(record: Received, name: str) -> None:
    assert submitted_to(record) == name
