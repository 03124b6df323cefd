"""What connectors send, and what their failures affect.

The tests use the session's stack, without a worker.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from connectors.debezium.configuration import postgres_connector
from connectors.kafka.admin import topic_names
from connectors.kafka.connect import ConnectClient
from connectors.telemetry import Telemetry
from domain.fold import LedgerState, Verdict, fold
from domain.quarantine import Reason
from migration.capture import connectors as capturing
from migration.capture.connectors import groups, prepare_capture
from migration.quarantine import Quarantines
from migration.watch import capture as capture_guard
from migration.watch.capture import guard_capture
from schemas.settings import Connector
from stack.layout import StackAddresses
from tests.stack.shop import Shop, bodies, shop_on

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]
_BOUND_S = 60.0
CONNECTORS: list[Connector] = ["postgres", "mariadb"]


@pytest.fixture
async def shop(stack: StackAddresses) -> AsyncIterator[Shop]:
    async with shop_on(stack) as made:
        yield made


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(_BOUND_S):
        while not holds():  # noqa: ASYNC110  # the condition depends on other processes
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("connector", CONNECTORS)
async def test_what_is_not_configured_does_not_travel_and_a_text_above_the_limit_ends_no_connector(
    connector: Connector, shop: Shop
) -> None:
    database = await shop.database(connector, "acme")
    await database.execute("insert into articles (id, title, body, unused) values (1, 't', 'b', repeat('x', 3000000))")
    ports = (await shop.captured(acme=shop.collection(connector, "acme")))["acme"]
    assert ports.capture is not None
    await shop.records(ports.capture.topic, 1)
    await database.execute("update articles set body = repeat('y', 3000000) where id = 1")
    await database.execute("insert into articles (id, title, body, unused) values (2, 't', 'b2', repeat('x', 3000000))")
    records = await shop.records(ports.capture.topic, 3)
    assert all(b"unused" not in (record.value or b"") for record in records)
    snapshot, long, last = await shop.changes(ports, 3)
    assert bodies([snapshot, last]) == [("1", "b"), ("2", "b2")]
    assert long.content is not None
    assert long.content.text_bytes() > shop.kafka.max_text_bytes


@pytest.mark.parametrize("connector", CONNECTORS)
async def test_a_text_that_is_cut_within_a_character_has_its_row_read_again(connector: Connector, shop: Shop) -> None:
    database = await shop.database(connector, "acme")
    await database.execute("insert into articles (id, title, body) values (1, 't', 'b')")
    ports = (await shop.captured(acme=shop.collection(connector, "acme")))["acme"]
    assert ports.capture is not None
    await shop.records(ports.capture.topic, 1)
    # Each balloon is two of Java's characters, and Debezium keeps an odd number of those.
    assert shop.kafka.max_text_bytes % 2 == 0
    await database.execute(f"update articles set body = repeat('🎈', {shop.kafka.max_text_bytes}) where id = 1")
    await database.execute("update articles set body = 'short' where id = 1")
    _, cut, last = await shop.changes(ports, 3)
    assert (cut.id, cut.incomplete, cut.content) == ("1", True, None)
    assert bodies([last]) == [("1", "short")]


@pytest.mark.parametrize("connector", CONNECTORS)
async def test_a_column_that_is_configured_later_travels_from_then_on_without_a_new_snapshot(
    connector: Connector, shop: Shop
) -> None:
    database = await shop.database(connector, "acme")
    await database.execute("insert into articles (id, title, body, unused) values (1, 't', 'b', 'first')")
    await shop.captured(acme=shop.collection(connector, "acme"))
    ports = (await shop.captured(acme=shop.collection(connector, "acme", metadata=("unused",))))["acme"]
    assert ports.capture is not None
    assert "unused" in await ports.table.columns()
    async with asyncio.timeout(_BOUND_S):
        for number in range(2, 1000):  # the task that is being replaced may read the first rows
            await database.execute(f"insert into articles (id, title, body, unused) values ({number}, 't', 'b', 'new')")
            *earlier, last = await shop.records(ports.capture.topic, number)
            if b'"unused":"new"' in (last.value or b""):
                break
    assert all(b"unused" not in (record.value or b"") for record in earlier)
    assert b'"op":"r"' not in (last.value or b"")


@pytest.mark.parametrize("connector", CONNECTORS)
async def test_a_document_keeps_its_place_when_the_primary_key_of_its_row_changes(
    connector: Connector, shop: Shop
) -> None:
    database = await shop.database(connector, "acme")
    await database.execute("alter table articles add sku varchar(40) not null unique")
    await database.execute("insert into articles (id, sku, body) values (8, 'first', 'snapshot')")
    ports = (await shop.captured(acme=shop.collection(connector, "acme", key=("sku",))))["acme"]
    await shop.changes(ports, 1)  # the snapshot is taken: later changes are captured one by one
    replaced = "replace into articles (id, sku, body) values (3, 'a', 'three')"
    if connector == "postgres":
        replaced = "update articles set id = 3, body = 'three' where sku = 'a'"
    for statement in (
        "insert into articles (id, sku, body) values (1, 'a', 'one')",
        "update articles set id = 2 where sku = 'a'",
        replaced,
        "insert into articles (id, sku, body) values (9, 'x', 'nine')",
        "update articles set sku = 'b' where sku = 'x'",
    ):
        await database.execute(statement)
    documents: dict[str, str | None] = {}
    ledgers: dict[str, LedgerState] = defaultdict(LedgerState)
    for version, changed in enumerate(await shop.changes(ports, 8), start=1):
        verdict, ledgers[changed.id] = fold(ledgers[changed.id], version, changed)
        assert verdict is Verdict.TAKES_EFFECT
        documents |= bodies([changed])
    assert documents == {"first": "snapshot", "a": "three", "b": "nine", "x": None}


async def test_changes_of_partitions_come_as_those_of_their_table(shop: Shop) -> None:
    database = await shop.database("postgres", "acme")
    for statement in (
        "create table parted (id int primary key, title text, body text, crossfade_version bigint)"
        " partition by range (id)",
        "create table parted_low partition of parted for values from (0) to (10)",
        "create table parted_high partition of parted for values from (10) to (20)",
        "alter table parted replica identity full",
        "alter table parted_low replica identity full",
        "alter table parted_high replica identity full",
        "insert into parted (id, title, body) values (1, 't', 'snapshot')",
    ):
        await database.execute(statement)
    ports = (await shop.captured(parted=shop.collection("postgres", "acme", table="parted")))["parted"]
    await shop.changes(ports, 1)
    await database.execute("insert into parted (id, title, body) values (11, 't', 'high')")
    await database.execute("update parted set body = 'low' where id = 1")
    assert bodies(await shop.changes(ports, 3)) == [("1", "snapshot"), ("11", "high"), ("1", "low")]


async def test_a_connector_that_fails_is_its_collections_quarantine_and_passes_when_it_runs(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_guard, "GUARD_S", 0.3)
    monkeypatch.setattr(capture_guard, "AWAY_S", 0.5)
    await shop.database("postgres", "acme")
    await shop.database("mariadb", "globex")
    collections = {"acme": shop.collection("postgres", "acme"), "globex": shop.collection("mariadb", "globex")}
    opened = await shop.opened(**collections)
    quarantines = Quarantines(opened.collections, Telemetry(tracing=False), collections, kafka=shop.kafka)
    output: list[str] = []

    def with_a_wrong_password(*arguments: Any, **named: Any) -> dict[str, str]:
        return {**postgres_connector(*arguments, **named), "database.password": "wrong"}

    with monkeypatch.context() as patched:
        patched.setattr(capturing, "postgres_connector", with_a_wrong_password)
        await prepare_capture(opened, quarantines, output.append)
    assert output == ["capture of mariadb runs"]
    assert {name: quarantine.reason for name, quarantine in quarantines.now.items()} == {"acme": Reason.CONNECTOR}
    assert "password authentication failed" in quarantines.now["acme"].message
    guard = asyncio.create_task(guard_capture(opened, quarantines, lambda: None))
    try:
        await until(lambda: not quarantines.now)
        (group,) = [group for group in groups(opened.collections) if group.kind == "mariadb"]
        async with ConnectClient(shop.stack.connect) as client:
            await client._request("PUT", f"/connectors/{group.connector}/pause")
            await until(lambda: quarantines.now.keys() == {"globex"})
            assert f"{group.connector} is paused by somebody" in quarantines.now["globex"].message
            await client._request("PUT", f"/connectors/{group.connector}/resume")
            await until(lambda: not quarantines.now)
    finally:
        guard.cancel()


async def test_without_kafka_connect_a_worker_can_start_and_its_collections_say_why(shop: Shop) -> None:
    await shop.database("postgres", "acme")
    opened = await shop.opened(acme=shop.collection("postgres", "acme"))
    away = opened.settings.kafka.model_copy(update={"connect": "http://127.0.0.1:9"})
    opened = replace(opened, settings=opened.settings.model_copy(update={"kafka": away}))
    quarantines = Quarantines(opened.collections, Telemetry(tracing=False), opened.settings.collections, kafka=away)
    await prepare_capture(opened, quarantines, lambda _: None)
    assert quarantines.now["acme"].reason is Reason.CONNECTOR
    assert "Kafka Connect at http://127.0.0.1:9 does not answer" in quarantines.now["acme"].message
    capture = opened.collections["acme"].capture
    assert capture is not None
    assert {capture.topic, capture.dead_letters} <= {*await topic_names(shop.stack.kafka)}


async def test_what_a_neighbour_makes_of_its_own_tables_ends_no_capture(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_guard, "GUARD_S", 0.5)
    acme, globex = await shop.database("mariadb", "acme"), await shop.database("mariadb", "globex")
    await globex.execute("create table packed_before (id int primary key, body text compressed)")
    collections = {"acme": shop.collection("mariadb", "acme")}
    ports = (await shop.captured(**collections))["acme"]
    opened = await shop.opened(**collections)
    quarantines = Quarantines(opened.collections, Telemetry(tracing=False), collections, kafka=shop.kafka)
    guard = asyncio.create_task(guard_capture(opened, quarantines, lambda: None))
    for statement in (
        "create table packed (id int primary key, body text compressed)",
        "create table versioned (id int primary key, body text, extra int without system versioning)"
        " with system versioning",
        "insert into versioned values (1, 'x', 1)",
        "update versioned set body = 'y'",
        "create view seen as select * from articles",
    ):
        await globex.execute(statement)
    await acme.execute("create table packed (id int primary key, body text compressed)")
    await acme.execute("insert into articles (id, title, body) values (7, 't', 'after them')")
    try:
        assert bodies(await shop.changes(ports, 1)) == [("7", "after them")]
    finally:
        guard.cancel()
