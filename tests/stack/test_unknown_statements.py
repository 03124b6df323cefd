"""A MariaDB statement that Debezium cannot parse quarantines only the collection of the table that it names."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from domain.quarantine import Reason
from stack.layout import StackAddresses
from tests.flow.site import eventually
from tests.stack.guarded import guarded
from tests.stack.shop import TABLES, Shop, bodies, shop_on
from tests.stack.test_captured_alone import reasons

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

STATEMENTS = {
    "names a captured table": "alter table articles add constraint if not exists positive check (id > 0)",
    "changes its columns": "alter table articles add more int first, add constraint if not exists p check (id > 0)",
    "reorders Debezium's columns alone": "alter table articles add column if not exists body longtext after id",
    "reorders Debezium's columns to others": "alter table articles add column if not exists body longtext first",
    "reorders the table's columns alone": "set sql_log_bin = 0; alter table articles modify body longtext after id;"
    " set sql_log_bin = 1",
    "is in no binary log": "set sql_log_bin = 0; alter table articles add more int; set sql_log_bin = 1",
    "names another table": "alter table elsewhere add constraint if not exists positive check (id > 0)",
}


@pytest.fixture
async def shop(stack: StackAddresses) -> AsyncIterator[Shop]:
    async with shop_on(stack) as made:
        yield made


@pytest.mark.parametrize("what", STATEMENTS)
async def test_a_statement_that_debezium_cannot_parse_stops_the_table_that_it_names_alone(
    shop: Shop, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await shop.database("mariadb", "acme")
    await database.execute(TABLES["mariadb"].replace("articles", "notes"))
    await database.execute("create table elsewhere (id int primary key)")
    names = {"articles": {}, "notes": {"table": "notes"}}
    opened = await shop.opened(
        **{name: shop.collection("mariadb", "acme", **changes) for name, changes in names.items()}
    )
    async with guarded(shop, opened, monkeypatch) as quarantines:
        assert reasons(quarantines) == {}
        for statement in STATEMENTS[what].split(";"):
            await database.execute(statement)
        await database.execute("insert into articles (id, title, body) values (1, 't', 'after')")
        await database.execute("insert into notes (id, title, body) values (1, 't', 'after')")
        assert bodies(await shop.changes(opened.collections["notes"], 1)) == [("1", "after")]

        async def steady() -> bool:
            return all("FAILED" not in each for each in await shop.connectors())

        async def stopped() -> bool:
            return reasons(quarantines) == {"articles": Reason.UNREADABLE}

        await eventually(steady, "the connector runs")
        if "another" in what:
            assert reasons(quarantines) == {}
            assert bodies(await shop.changes(opened.collections["articles"], 1)) == [("1", "after")]
        else:
            await eventually(stopped, "the table is stopped")
            detail = quarantines.now["articles"].detail
            assert any(
                each in detail for each in ("constraint if not exists", "other columns", "takes its columns for")
            )
