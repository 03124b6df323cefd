"""A setting that begins to hide changes from a running capture quarantines the collection.

A table whose name differs only in case hides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from domain.quarantine import Reason
from migration.capture.connectors import groups
from schemas.settings import Connector
from stack.layout import StackAddresses
from tests.flow.site import eventually
from tests.stack.guarded import guarded
from tests.stack.shop import TABLES, Shop, bodies, shop_on
from tests.stack.test_captured_alone import reasons

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

HIDING: dict[Connector, tuple[str, ...]] = {
    "postgres": (
        "alter publication {p} set (publish = 'insert')",
        "alter publication {p} set table articles where (id > 100)",
    ),
    "mariadb": ("set global log_bin_compress = on", "set global binlog_format = statement"),
}
RESTORED = ("set global log_bin_compress = off", "set global binlog_format = row")


@pytest.fixture
async def shop(stack: StackAddresses) -> AsyncIterator[Shop]:
    async with shop_on(stack) as made:
        yield made


@pytest.mark.parametrize(("connector", "number"), [(c, n) for c in HIDING for n in (0, 1)])
async def test_a_setting_that_hides_changes_stops_its_collections(
    shop: Shop, connector: Connector, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await shop.database(connector, "acme")
    opened = await shop.opened(acme=shop.collection(connector, "acme"))
    async with guarded(shop, opened, monkeypatch) as quarantines:
        (group,) = groups(opened.collections)
        assert reasons(quarantines) == {}
        try:
            await database.execute(HIDING[connector][number].format(p=group.slot))

            async def stopped() -> bool:
                return reasons(quarantines) == {"acme": Reason.CAPTURE_LOST}

            await eventually(stopped, "the collection is stopped")
        finally:
            if connector == "mariadb":
                await database.execute(RESTORED[number])


async def test_a_table_whose_name_differs_in_case_is_left_alone_in_postgres(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await shop.database("postgres", "acme")
    await database.execute('create table "Articles" (a int, b text)')
    await database.execute("insert into articles (id, title, body) values (1, 't', 'snapshot')")
    opened = await shop.opened(acme=shop.collection("postgres", "acme"))
    async with guarded(shop, opened, monkeypatch) as quarantines:
        assert await database.fetch("select tablename from pg_publication_tables") == [("articles",)]
        await database.execute("insert into \"Articles\" values (1, 'x')")
        await database.execute("update \"Articles\" set b = 'y'")
        await database.execute("update articles set body = 'later'")
        found = bodies(await shop.changes(opened.collections["acme"], 2))
        assert found == [("1", "snapshot"), ("1", "later")]
        assert reasons(quarantines) == {}


async def test_a_table_whose_name_differs_in_case_is_left_alone_in_mariadb(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await shop.database("mariadb", "acme")
    await database.execute(TABLES["mariadb"].replace("articles", "notes"))
    both = {name: shop.collection("mariadb", "acme", table=name) for name in ("articles", "notes")}
    opened = await shop.opened(**both)
    async with guarded(shop, opened, monkeypatch) as quarantines:
        await database.execute("create table Notes (id int primary key, other text)")
        await database.execute("insert into Notes values (1, 'x')")
        for name in both:
            await database.execute(f"insert into {name} (id, title, body) values (1, 't', 'of {name}')")
            assert bodies(await shop.changes(opened.collections[name], 1)) == [("1", f"of {name}")]
        await asyncio.sleep(2)
        assert reasons(quarantines) == {}
