"""On the real stack, one database, collection or worker does not disturb the capture of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from connectors.embedding.memory import HashingEmbedder
from connectors.kafka.connect import ConnectClient
from connectors.memory.bus import MemoryBus
from connectors.memory.vectors import MemoryVectorStore
from connectors.telemetry import Telemetry
from domain.quarantine import Quarantine, Reason
from migration.capture.connectors import groups, make_topics, prepare_capture
from migration.capture.names import assign_captures, databases_of
from migration.epochs import Epochs
from migration.opener import Opened, Opener
from migration.quarantine import Quarantines
from migration.state import CollectionState
from migration.watch.capture import guard_capture
from migration.watch.databases import START, bring_back
from migration.watch.sources import SourceWatch
from migration.watch.topics import TopicWatch
from stack.layout import StackAddresses
from tests.contract.legacy_places import Connection
from tests.flow.site import eventually
from tests.stack.shop import TABLES, Shop, bodies, shop_on
from topics.provisioning import SOURCES_SEEN

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]


@pytest.fixture
async def shop(stack: StackAddresses) -> AsyncIterator[Shop]:
    async with shop_on(stack) as made:
        yield made


def quarantines_of(opened: Opened) -> Quarantines:
    settings = opened.settings
    return Quarantines(opened.collections, Telemetry(tracing=False), settings.collections, kafka=settings.kafka)


def reasons(quarantines: Quarantines) -> dict[str, Reason]:
    return {name: quarantine.reason for name, quarantine in quarantines.now.items()}


async def named(opened: Opened) -> None:
    """Assign the names of their captures to collections, as a worker does when it starts."""
    databases, away = await databases_of(opened.collections)
    assert away == await assign_captures(opened, databases, [], lambda _: None) == {}


async def rename(shop: Shop, database: str, name: str) -> None:
    """Rename a PostgreSQL database, after ending all connections to it."""
    server = await Connection.open("postgres", str(shop.stack.postgres))
    try:
        ended = f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{shop.name(database)}'"
        await server.fetch(ended)
        await server.execute(f"alter database {shop.name(database)} rename to {shop.name(name)}")
    finally:
        await server.close()


@asynccontextmanager
async def away(shop: Shop, database: str) -> AsyncIterator[None]:
    await rename(shop, database, "away")
    try:
        yield
    finally:
        await rename(shop, "away", database)


async def test_workers_that_start_against_a_new_system_make_one_capture(shop: Shop) -> None:
    database = await shop.database("postgres", "acme")
    await database.execute("insert into articles (id, title, body) values (1, 't', 'first')")
    # Both find the table uncaptured, whichever is faster afterwards.
    workers = [await shop.opened(acme=shop.collection("postgres", "acme")) for _ in range(2)]
    for opened in workers:
        await prepare_capture(opened, quarantines_of(opened), lambda _: None)
    assert len({opened.collections["acme"].capture for opened in workers}) == 1
    assert len(await shop.connectors()) == 1
    slots = "select count(*) from pg_replication_slots where database = current_database()"
    assert await database.fetch(slots) == [(1,)]
    assert bodies(await shop.changes(workers[0].collections["acme"], 1)) == [("1", "first")]


async def test_a_collection_whose_records_cannot_be_read_is_away_alone(shop: Shop) -> None:
    database = await shop.database("postgres", "acme")
    await database.execute("create schema app")
    for statement in TABLES["postgres"].split(";"):
        await database.execute(statement.replace("articles", "app.articles"))
    # The failing collection is checked first, because they are in the order of their names.
    bad = shop.collection("postgres", "acme", table="app.articles")
    opened = await shop.opened(bad=bad, good=shop.collection("postgres", "acme"))
    await named(opened)
    (group,) = groups(opened.collections)
    quarantines, bus = quarantines_of(opened), cast(MemoryBus, opened.bus)
    async with ConnectClient(shop.stack.connect) as client:
        watch = SourceWatch(opened.bus, client)
        await database.execute("alter table app.crossfade_meta rename to elsewhere")
        assert await watch.look(group, quarantines) == ["good"]
        assert reasons(quarantines) == {"bad": Reason.UNREACHABLE}
        assert [record.key for record in bus.records(SOURCES_SEEN)] == [b"good"]
        for statement in ("alter table articles rename to replaced", TABLES["postgres"].split(";")[0]):
            await database.execute(statement)
        await watch.look(group, quarantines)
        assert reasons(quarantines) == {"bad": Reason.UNREACHABLE, "good": Reason.TABLE_REPLACED}
        await database.execute("alter table app.elsewhere rename to crossfade_meta")
        assert await watch.look(group, quarantines) == ["bad"]
        assert reasons(quarantines) == {"good": Reason.TABLE_REPLACED}
        assert {record.key for record in bus.records(SOURCES_SEEN)} == {b"good", b"bad"}


async def test_a_database_that_is_away_holds_no_others_capture_and_gets_its_own_when_it_is_back(shop: Shop) -> None:
    for database in ("acme", "globex"):
        await (await shop.database("postgres", database)).execute(
            f"insert into articles (id, title, body) values (1, 't', 'of {database}')"
        )
    both = {name: shop.collection("postgres", name) for name in ("acme", "globex")}
    opened = await shop.opened(**both)
    quarantines = quarantines_of(opened)
    async with away(shop, "acme"):
        await prepare_capture(opened, quarantines, lambda _: None)
        assert reasons(quarantines) == {"acme": Reason.UNREACHABLE}
        assert opened.collections["acme"].capture is None
        assert bodies(await shop.changes(opened.collections["globex"], 1)) == [("1", "of globex")]
    guard = asyncio.create_task(guard_capture(opened, quarantines, lambda: None))
    try:
        await eventually_none(quarantines)
        assert bodies(await shop.changes(opened.collections["acme"], 1)) == [("1", "of acme")]
        assert not guard.done()
    finally:
        guard.cancel()
        await asyncio.gather(guard, return_exceptions=True)


async def eventually_none(quarantines: Quarantines) -> None:
    async def none() -> bool:
        return not quarantines.now

    await eventually(none, "every collection is in service")


async def test_a_collection_whose_database_was_replaced_meanwhile_is_opened_as_stopped(
    shop: Shop, tmp_path: Path
) -> None:
    for database in ("acme", "globex"):
        await shop.database("postgres", database)
    both = {name: shop.collection("postgres", name) for name in ("acme", "globex")}
    seen = await shop.opened(**both)
    await named(seen)
    async with ConnectClient(shop.stack.connect) as client:
        watch = SourceWatch(seen.bus, client)
        for group in groups(seen.collections):
            assert await watch.look(group, quarantines_of(seen))
    # Replace the database with a copy that has all its records, as a logical restore does.
    await rename(shop, "acme", "before")
    server = await Connection.open("postgres", str(shop.stack.postgres))
    shop.resources.push_async_callback(server.close)
    shop.resources.push_async_callback(server.execute, f"drop database {shop.name('before')} with (force)")
    await server.execute(f"create database {shop.name('acme')} template {shop.name('before')}")

    settings = seen.settings
    acme = settings.collections["acme"]
    models: dict[Any, Any] = {(acme.model, acme.chunk_tokens, acme.chunk_overlap): HashingEmbedder()}
    async with AsyncExitStack() as resources:
        opener = Opener(settings, tmp_path, lambda _: None, MemoryVectorStore(), 1, resources, models)
        started = {"globex": seen.collections["globex"]}
        opened = Opened(settings, seen.bus, opener.vectors, started, Epochs(), resources, opener=opener)
        quarantines = quarantines_of(opened)
        quarantines.away("acme", START, "its database is away")
        async with asyncio.timeout(60):
            await bring_back(
                settings, opened, quarantines, captures=True, changed=lambda: None, progress=lambda _: None
            )
        assert reasons(quarantines) == {"acme": Reason.SERVER}
        assert set(opened.collections) == {"acme", "globex"}
        # It was never active: no connector was created, and the recorded reason keeps it quarantined.
        assert await shop.connectors() == []
        assert await CollectionState(opened.collections["acme"].ledger, "acme").reason() == Reason.SERVER
        await quarantines.follow()
        assert reasons(quarantines) == {"acme": Reason.SERVER}


async def test_a_collection_that_comes_back_with_the_table_of_another_one_stays_stopped(
    shop: Shop, tmp_path: Path
) -> None:
    await shop.database("postgres", "acme")
    one, two = (shop.collection("postgres", "acme") for _ in range(2))
    seen = await shop.opened(one=one, two=two)
    await named(seen)
    models: dict[Any, Any] = {(two.model, two.chunk_tokens, two.chunk_overlap): HashingEmbedder()}
    async with AsyncExitStack() as resources:
        opener = Opener(seen.settings, tmp_path, lambda _: None, MemoryVectorStore(), 1, resources, models)
        opened = replace(seen, collections={"one": seen.collections["one"]}, opener=opener, resources=resources)
        quarantines = quarantines_of(opened)
        quarantines.known(Quarantine("two", Reason.TABLE, "a column is missing"))
        async with asyncio.timeout(60):
            await bring_back(
                seen.settings, opened, quarantines, captures=True, changed=lambda: None, progress=lambda _: None
            )
        assert set(opened.collections) == {"one", "two"}
        assert "that of the collection one" in quarantines.now["two"].detail


async def test_a_database_whose_records_cannot_be_read_blinds_no_watch_of_topics(shop: Shop) -> None:
    for database in ("acme", "globex"):
        await shop.database("postgres", database)
    opened = await shop.opened(**{name: shop.collection("postgres", name) for name in ("acme", "globex")})
    await named(opened)
    for group in groups(opened.collections):
        await make_topics(shop.kafka, group)
    watch = TopicWatch(shop.kafka, opened.collections)
    try:
        assert await watch.confirmed() == {}
        await shop.connections["acme"].execute("alter table crossfade_identities rename to elsewhere")
        # The record of another topic of that name, as if it had been deleted and created again since.
        globex = opened.collections["globex"]
        assert globex.capture is not None
        topic = globex.capture.topic
        cluster = str(await globex.ledger.identity(f"topic.{topic}")).partition("/")[0]
        await globex.ledger.set_identity(f"topic.{topic}", f"{cluster}/7b3f0a52-0000-4000-8000-000000000000")
        assert set(await watch.compare(fresh=True)) == {topic}
    finally:
        await watch.close()
