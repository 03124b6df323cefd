"""Lag and barrier on a real broker. The tests commit the offsets of groups of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import cast
from uuid import UUID, uuid4

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from connectors.errors import Misconfigured, StoreUnavailable
from connectors.kafka.admin import apply, delete_topics, existing_topics
from connectors.kafka.bus import AiokafkaBus
from connectors.kafka.identity import topic_identities
from connectors.kafka.offsets import KafkaOffsets
from migration.capture.barrier import drained
from migration.lag import RoleLag, RoleReads, role_lags
from schemas.records import Outgoing
from schemas.settings import Kafka
from stack.layout import StackAddresses
from topics.provisioning import Action, DesiredTopic, Widening

pytestmark = pytest.mark.stack
ROLES = {"intake": "in", "capture": "in", "resolver": "log", "legacy": "mid", "embedder": "mid", "vector": "out"}


@dataclass
class Rig:
    """Four topics of two partitions, the groups that read them, and the port that reads their offsets."""

    bootstrap: str
    run: str
    bus: AiokafkaBus
    offsets: KafkaOffsets
    reads: list[RoleReads]

    async def lags(self) -> list[RoleLag]:
        return await role_lags(self.offsets, self.reads)

    async def passed(self, limit_s: float) -> bool:
        return await drained(self.offsets, self.reads, limit_s)

    def topic(self, name: str) -> str:
        return f"test.lag.{self.run}.{name}"

    async def publish(self, name: str, count: int, size: int = 10) -> None:
        await self.bus.publish([Outgoing(self.topic(name), f"{n}".encode(), b"v" * size) for n in range(count)])

    async def commit(self, role: str, *offsets: int) -> None:
        """Commit offsets of a role, one for each partition."""
        # With auto-commit it would commit its own position when it stops, which may be an earlier offset.
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, group_id=group(self.run, role), enable_auto_commit=False
        )
        await consumer.start()
        try:
            places = {TopicPartition(self.topic(ROLES[role]), number): offset for number, offset in enumerate(offsets)}
            consumer.assign(list(places))
            await consumer.commit(places)
        finally:
            await consumer.stop()

    async def ends(self, name: str) -> list[int]:
        return [end for _, (_, end) in sorted((await self.offsets.bounds([self.topic(name)])).items())]


def group(run: str, role: str) -> str:
    return f"test-{run}-{role}"


@pytest.fixture
async def rig(stack: StackAddresses) -> AsyncIterator[Rig]:
    run = uuid4().hex[:8]
    names = [f"test.lag.{run}.{name}" for name in ("in", "log", "mid", "out")]
    topics = [DesiredTopic(name, 2, 1, {}, Widening.FREE, "a test") for name in names]
    await apply(stack.kafka, [Action("create", topic, "test", 2, {}) for topic in topics])
    bus = AiokafkaBus(Kafka(bootstrap=stack.kafka))
    reads = [RoleReads(role, group(run, role), (f"test.lag.{run}.{name}",)) for role, name in ROLES.items()]
    reads[1] = RoleReads("capture", group(run, "capture"), (f"test.lag.{run}.in", "test.lag.absent"))
    look = KafkaOffsets(stack.kafka)
    yield Rig(stack.kafka, run, bus, look, reads)
    await look.close()
    await bus.close()
    await delete_topics(stack.kafka, names)


async def test_nothing_written_is_no_lag(rig: Rig) -> None:
    assert {(each.role, each.messages, each.seconds) for each in await rig.lags()} == {(role, 0, 0.0) for role in ROLES}


async def test_lag_counts_what_is_not_committed_and_tells_the_age_of_the_oldest(rig: Rig) -> None:
    before = time.time()
    await rig.publish("in", 10)
    ends = await rig.ends("in")
    assert sum(ends) == 10
    await rig.commit("intake", ends[0], ends[1] - 1)
    found = {each.role: each for each in await rig.lags()}
    assert (found["intake"].messages, found["capture"].messages, found["resolver"].messages) == (1, 10, 0)
    for role in ("intake", "capture"):
        age = found[role].seconds
        assert age is not None
        assert 0 <= age <= time.time() - before + 1
    await rig.commit("intake", *ends)
    found = {each.role: each for each in await rig.lags()}
    assert (found["intake"].messages, found["intake"].seconds) == (0, 0.0)


async def test_the_age_is_that_of_the_oldest_record_of_all_partitions(rig: Rig) -> None:
    await rig.publish("in", 8)
    ends = await rig.ends("in")
    await asyncio.sleep(1.1)
    await rig.publish("in", 8)
    await rig.commit("intake", ends[0] - 1, ends[1])
    (first,) = [each for each in await rig.lags() if each.role == "intake"]
    await rig.commit("intake", *ends)
    (second,) = [each for each in await rig.lags() if each.role == "intake"]
    assert first.seconds is not None
    assert second.seconds is not None
    assert first.seconds > second.seconds
    assert first.seconds > 1.0


async def test_the_age_of_large_records_is_reported_too(rig: Rig) -> None:
    await rig.publish("in", 4, size=900_000)
    found = {each.role: each for each in await rig.lags()}
    assert found["intake"].messages == 4
    assert found["intake"].seconds is not None
    assert found["intake"].seconds > 0


async def test_the_barrier_opens_when_the_last_role_committed(rig: Rig) -> None:
    for name in ("in", "log", "mid", "out"):
        await rig.publish(name, 3)
    roles = list(ROLES)
    for role in roles[:-1]:
        await rig.commit(role, *await rig.ends(ROLES[role]))
    assert not await rig.passed(0.5)
    waiting = asyncio.create_task(rig.passed(30))
    await rig.commit(roles[-1], *await rig.ends(ROLES[roles[-1]]))
    assert await waiting


async def test_the_barrier_waits_for_the_captured_topics_that_it_is_given(rig: Rig) -> None:
    await rig.publish("in", 3)
    await rig.commit("intake", *await rig.ends("in"))
    assert not await rig.passed(0.5)
    rig.reads[1] = replace(rig.reads[1], topics=("test.lag.absent",))
    assert await rig.passed(30)


async def test_a_broker_that_stands_still_is_unavailable_and_one_that_is_back_is_asked_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.publish("in", 2)
    assert await rig.lags()
    monkeypatch.setattr(rig.offsets, "_timeout_s", 1.0)
    broker = listening_on(int(rig.bootstrap.rpartition(":")[2]))
    os.kill(broker, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable):
            await rig.lags()
    finally:
        os.kill(broker, signal.SIGCONT)
    monkeypatch.undo()
    assert sum(each.messages for each in await rig.lags() if each.role == "intake") == 2


def listening_on(port: int) -> int:
    for found in psutil.net_connections("tcp"):
        if found.laddr and found.laddr[1] == port and found.status == psutil.CONN_LISTEN and found.pid:
            return found.pid
    raise AssertionError(f"nobody listens on {port}")


async def test_only_a_topic_that_the_brokers_do_not_know_counts_as_absent(rig: Rig) -> None:
    there, absent = rig.topic("in"), rig.topic("never-made")
    found = await rig.offsets.identities([there, absent])
    assert set(found) == {there}
    assert found[there].topic
    assert absent not in await existing_topics(rig.bootstrap, [absent])
    with pytest.raises(Misconfigured):  # a topic that they do not report on might exist
        await rig.offsets.identities([there, "no/topic"])
    assert set(await rig.offsets.identities([there])) == {there}


@pytest.mark.parametrize("code", [5, 17, 29, 31, -1, 9999], ids=str)
async def test_an_error_of_the_brokers_metadata_is_never_an_absence(code: int) -> None:
    """A real broker returns few of these codes, so the test supplies the broker's answer."""

    class Admin:
        async def _send_request(self, _: object) -> object:
            return SimpleNamespace(cluster_id="c", topics=[(0, "there", UUID(int=7)), (code, "dark", UUID(int=0))])

    with pytest.raises(KafkaError):
        await topic_identities(cast(AIOKafkaAdminClient, Admin()), ["there", "dark"])
