"""The commands for topics and dead letters, against a real broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, TopicPartition
from typer.testing import CliRunner

from connectors.kafka import offsets, reader
from connectors.kafka.admin import broker_config, delete_topics, existing_topics, provision
from connectors.kafka.bus import AiokafkaBus
from operations.commands import dlt, topics
from schemas.dead_letters import SUFFIX, dead_letter
from schemas.records import Outgoing, Received
from schemas.settings import Settings
from stack.layout import StackAddresses
from topics.captures import Capture
from topics.provisioning import REPLAYED, DesiredTopic, captured_topics, desired_topics, plan

pytestmark = pytest.mark.stack


class Shop:
    """Settings of a separate installation on the shared broker. Its captured table has a name of its own."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.prefix = f"test.{uuid4().hex}"
        self.captured = f"{self.prefix}.public.articles"
        self.capture = Capture(1, self.prefix, "nobody", "public.articles")
        self.file = folder / "crossfade.toml"
        self.write(2)

    def write(self, partitions: int, replication: int = 1) -> None:
        self.file.write_text(
            f'[kafka]\nbootstrap = "{self.bootstrap}"\npartitions = {partitions}\nreplication = {replication}\n'
            f'capture_prefix = "{self.prefix}"\n'
            '[collections.docs]\ntable = "articles"\nkey = ["id"]\ntext = ["body"]\n',
            encoding="utf-8",
        )

    def settings(self) -> Settings:
        collection = {"table": "articles", "key": ["id"], "text": ["body"]}
        kafka = {"bootstrap": self.bootstrap, "partitions": 2, "capture_prefix": self.prefix}
        return Settings.model_validate({"kafka": kafka, "collections": {"docs": collection}})

    def own(self) -> tuple[DesiredTopic, ...]:
        return captured_topics(self.settings().kafka, [self.capture], mariadb=False)

    def own_topics(self) -> list[str]:
        return [topic.name for topic in self.own()]

    def call(self, command: Any, *arguments: str) -> tuple[int, Any, str]:
        """Run a command; return its exit code, its JSON document, and its stderr."""
        home = str(self.file.parent / "home")
        result = CliRunner().invoke(command, [*arguments, "--config", str(self.file), "--home", home, "--json"])
        return result.exit_code, json.loads(result.stdout) if result.stdout else None, result.stderr


@pytest.fixture
def shop(tmp_path: Path, stack: StackAddresses, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    for name in ("CROSSFADE_CONFIG", "CROSSFADE_KAFKA__BOOTSTRAP", "CROSSFADE_KAFKA__PARTITIONS"):
        monkeypatch.delenv(name, raising=False)
    made = Shop(tmp_path, stack.kafka)
    asyncio.run(_provision_own(made))
    yield made
    asyncio.run(delete_topics(stack.kafka, made.own_topics()))


async def _provision_own(shop: Shop) -> None:
    """Create its own topics and the topic of replayed letters. Other catalogue topics belong to the whole broker."""
    own = [*shop.own(), *(topic for topic in desired_topics(shop.settings()) if topic.name == REPLAYED)]
    await provision(shop.bootstrap, plan(own, await existing_topics(shop.bootstrap, [topic.name for topic in own])))


def test_what_was_provisioned_is_what_the_plan_wanted(shop: Shop) -> None:
    wanted = shop.own()
    existing = asyncio.run(existing_topics(shop.bootstrap, [topic.name for topic in wanted]))
    assert {action.kind for action in plan(wanted, existing)} == {"keep"}
    assert existing[shop.captured].partitions == 2
    code, document, _ = shop.call(topics.app, "list")
    assert code == 0
    assert {topic["topic"]: topic["step"] for topic in document["topics"]}[shop.captured] == "keep"


def test_a_widening_that_could_reorder_waits_for_a_yes(shop: Shop) -> None:
    shop.write(3)
    code, document, _ = shop.call(topics.app, "apply", "--dry-run")
    step = next(step for step in document["steps"] if step["topic"] == shop.captured)
    assert (code, step["step"], step["done"]) == (3, "widen", False)
    assert "overtaken" in step["needs_yes"]
    existing = asyncio.run(existing_topics(shop.bootstrap, [shop.captured]))
    assert existing[shop.captured].partitions == 2


def test_replicas_that_no_broker_can_hold_change_nothing_and_writes_go_on(shop: Shop) -> None:
    shop.write(2, replication=3)
    code, document, _ = shop.call(topics.app, "apply", "--yes", "--dry-run")
    steps = [step for step in document["steps"] if step["topic"] == shop.captured]
    assert (code, [step["step"] for step in steps], document["reassignment"]) == (3, ["reassign"], None)
    plain = CliRunner().invoke(topics.app, ["apply", "--dry-run", "--config", str(shop.file)])
    assert "there is 1 broker: start more, or set kafka.replication to 1" in plain.stdout
    asyncio.run(_provision_wider(shop))
    asyncio.run(_publish(shop))
    found = asyncio.run(existing_topics(shop.bootstrap, [shop.captured]))[shop.captured]
    assert (found.replication, found.config["min.insync.replicas"]) == (1, "1")


async def _provision_wider(shop: Shop) -> None:
    """Do what a worker does at its start, if three replicas are wanted."""
    wanted = shop.settings()
    wanted = wanted.model_copy(update={"kafka": wanted.kafka.model_copy(update={"replication": 3})})
    own = [topic for topic in desired_topics(wanted) if topic.name in shop.own_topics()]
    await provision(shop.bootstrap, plan(own, await existing_topics(shop.bootstrap, [topic.name for topic in own])))


async def _publish(shop: Shop) -> None:
    bus = AiokafkaBus(shop.settings().kafka)
    await bus.open()
    try:
        await bus.publish([Outgoing(shop.captured, b"key", b"value", ())])
    finally:
        await bus.close()


def test_altering_one_value_leaves_the_others_that_were_set(shop: Shop) -> None:
    wanted = [topic for topic in shop.own() if topic.name == shop.captured]
    before = asyncio.run(existing_topics(shop.bootstrap, [shop.captured]))
    smaller = {shop.captured: before[shop.captured]}
    asyncio.run(_set_retention(shop.bootstrap, wanted, smaller))
    after = asyncio.run(existing_topics(shop.bootstrap, [shop.captured]))[shop.captured]
    assert after.config["retention.ms"] == "-1"
    assert after.config["max.message.bytes"] == before[shop.captured].config["max.message.bytes"]


async def _set_retention(bootstrap: str, wanted: list[Any], existing: dict[str, Any]) -> None:
    longer = [replace(topic, config={**topic.config, "retention.ms": "-1"}) for topic in wanted]
    actions = plan(longer, existing)
    assert [action.kind for action in actions] == ["alter"]
    await provision(bootstrap, actions)


def test_the_limits_of_every_broker_can_be_read(shop: Shop) -> None:
    found = asyncio.run(broker_config(shop.bootstrap, ["message.max.bytes", "no.such.key"]))
    assert found
    for values in found.values():
        assert set(values) == {"message.max.bytes"}


async def _put_letters(shop: Shop, count: int) -> list[Outgoing]:
    bus = AiokafkaBus(shop.settings().kafka)
    originals = [
        Outgoing(shop.captured, f"docs/{number}".encode(), f"value {number}".encode(), (("ce_id", b"x"),))
        for number in range(count)
    ]
    received = [Received(o.topic, 0, n, o.key, o.value, o.headers) for n, o in enumerate(originals)]
    await bus.publish([dead_letter(r, stage="capture", error=ValueError("bad"), attempt=1) for r in received])
    await bus.close()
    return originals


async def _published(shop: Shop) -> list[tuple[bytes | None, bytes | None]]:
    return [(record.key, record.value) async for record in reader.read_topic(shop.bootstrap, shop.captured)]


def test_letters_are_listed_shown_and_each_replayed_once(shop: Shop) -> None:
    originals = asyncio.run(_put_letters(shop, 5))
    code, document, _ = shop.call(dlt.app, "list")
    listed = {found["topic"]: found for found in document["dead_letters"]}[shop.captured]
    assert (code, listed["count"], listed["replayed"], listed["message"]) == (0, 5, 0, "bad")

    code, document, _ = shop.call(dlt.app, "show", shop.captured, "--offset", "3")
    (shown,) = document["dead_letters"]
    assert (code, shown["key"], shown["value"], shown["stage"]) == (0, "docs/3", "value 3", "capture")

    code, document, _ = shop.call(dlt.app, "replay", shop.captured, "--offset", "3")
    assert (code, document["count"]) == (0, 1)
    assert asyncio.run(_published(shop)) == [(originals[3].key, originals[3].value)]

    code, document, _ = shop.call(dlt.app, "replay", shop.captured + SUFFIX, "--all", "--dry-run")
    assert (document["count"], document["published"]) == (4, False)
    code, document, _ = shop.call(dlt.app, "replay", shop.captured, "--all")
    assert [letter["offset"] for letter in document["letters"]] == [0, 1, 2, 4]
    code, document, _ = shop.call(dlt.app, "replay", shop.captured, "--all")
    assert document["count"] == 0
    assert sorted(asyncio.run(_published(shop))) == sorted((o.key, o.value) for o in originals)

    code, document, _ = shop.call(dlt.app, "replay", shop.captured, "--offset", "0", "--again")
    assert document["count"] == 1
    assert len(asyncio.run(_published(shop))) == 6
    code, document, _ = shop.call(dlt.app, "show", shop.captured)
    assert [letter["replayed"] for letter in document["dead_letters"]] == [True] * 5


def test_a_letter_that_comes_after_a_replay_is_replayed_by_the_next(shop: Shop) -> None:
    asyncio.run(_put_letters(shop, 2))
    shop.call(dlt.app, "replay", shop.captured, "--all")
    asyncio.run(_put_letters(shop, 1))
    _, document, _ = shop.call(dlt.app, "replay", shop.captured, "--all")
    assert [letter["offset"] for letter in document["letters"]] == [2]


def test_the_lag_of_a_group_counts_from_what_it_committed_or_from_the_beginning(shop: Shop) -> None:
    asyncio.run(_put_letters(shop, 3))
    topic = shop.captured + SUFFIX
    before = asyncio.run(offsets.group_lag(shop.bootstrap, f"{shop.prefix}.group", [topic]))
    assert [(lag.committed, lag.end, lag.lag) for lag in before] == [(None, 3, 3)]
    consumer = Consumer({"bootstrap.servers": shop.bootstrap, "group.id": f"{shop.prefix}.group"})
    consumer.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
    consumer.close()
    after = asyncio.run(offsets.group_lag(shop.bootstrap, f"{shop.prefix}.group", [topic]))
    assert [(lag.committed, lag.end, lag.lag) for lag in after] == [(2, 3, 1)]


@pytest.mark.parametrize("arguments", [["replay"], ["replay", "no-such-topic", "--all"], ["show", "no-such-topic"]])
def test_a_wrong_use_is_reported_without_a_traceback(shop: Shop, arguments: list[str]) -> None:
    code, document, reported = shop.call(dlt.app, *arguments)
    assert (code, document) == (2, None)
    assert reported.startswith("crossfade: ")
    assert "Traceback" not in reported


def test_without_brokers_the_command_says_so(tmp_path: Path) -> None:
    lonely = Shop(tmp_path, "127.0.0.1:1")
    code, document, reported = lonely.call(topics.app, "list")
    assert (code, document) == (1, None)
    assert "do not answer" in reported
    assert "crossfade up" in reported
