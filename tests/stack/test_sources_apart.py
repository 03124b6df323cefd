"""Tables of the same name in several databases and servers are captured separately.

The tests use the session's stack, without a worker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from connectors.debezium.changes import ForeignChange
from connectors.sql.database_identity import database_identity
from schemas.settings import Connector
from stack.layout import StackAddresses
from tests.stack.shop import TABLES, Shop, bodies, decoded, shop_on

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]


@pytest.fixture
async def shop(stack: StackAddresses) -> AsyncIterator[Shop]:
    async with shop_on(stack) as made:
        yield made


@pytest.mark.parametrize("connector", ["postgres", "mariadb"])
async def test_one_table_of_two_databases_of_a_server_is_captured_apart(connector: Connector, shop: Shop) -> None:
    for database in ("acme", "globex"):
        await (await shop.database(connector, database)).execute(
            f"insert into articles (id, title, body) values (42, 't', 'of {database}')"
        )
    found = await shop.captured(acme=shop.collection(connector, "acme"), globex=shop.collection(connector, "globex"))
    for database, ports in found.items():
        await shop.changes(ports, 1)
        await shop.connections[database].execute(f"update articles set body = 'of {database}, later'")
        changes = await shop.changes(ports, 2)
        assert bodies(changes) == [("42", f"of {database}"), ("42", f"of {database}, later")]
        assert {change.collection for change in changes} == {database}
    acme, globex = found["acme"].capture, found["globex"].capture
    assert acme is not None
    assert globex is not None
    (record, *_) = await shop.records(globex.topic, 1)
    with pytest.raises(ForeignChange, match=shop.name("globex")):
        decoded(record, found["acme"])
    with pytest.raises(ForeignChange, match="name"):  # also if the database has the same name on another server
        decoded(record, replace(found["globex"], capture=acme))


async def test_a_server_is_known_by_itself_and_not_by_its_address_or_role(shop: Shop, stack: StackAddresses) -> None:
    for connector in ("postgres", "mariadb"):
        await shop.database(connector, connector[:4])
        plain = shop.dsn(connector, connector[:4])
        alias = plain.replace("127.0.0.1", "localhost") if connector == "postgres" else plain + "?charset=utf8mb4"
        one, two = await database_identity(connector, plain), await database_identity(connector, alias)
        assert one == two
        assert one.key is not None
        other = await database_identity(connector, str(getattr(stack, connector)))
        assert (other.server, other.running) == (one.server, one.running)
        assert other.key != one.key


async def test_a_role_without_rights_of_its_own_sees_the_same_identity(shop: Shop) -> None:
    database = await shop.database("postgres", "acme")
    await database.execute(f"create role {shop.name('plain')} login password 'p'")
    try:
        whole = await database_identity("postgres", shop.dsn("postgres", "acme"))
        parts = urlsplit(shop.dsn("postgres", "acme"))
        dsn = parts._replace(netloc=f"{shop.name('plain')}:p@{parts.hostname}:{parts.port}").geturl()
        plain = await database_identity("postgres", dsn)
        assert (plain.key, plain.running) == (whole.key, whole.running)
        assert plain.role != whole.role
    finally:
        await database.execute(f"drop role {shop.name('plain')}")


async def test_a_collection_that_comes_after_one_that_was_removed_gets_its_own_snapshot(shop: Shop) -> None:
    database = await shop.database("postgres", "acme")
    for name in ("b", "c"):
        await database.execute(TABLES["postgres"].split(";")[0].replace("articles", name))
        await database.execute(f"insert into {name} (id, title, body) values (1, 't', 'of {name}')")
    a, b, c = (shop.collection("postgres", "acme", table=table) for table in ("articles", "b", "c"))
    await shop.captured(a=a)
    before = await shop.captured(a=a, b=b)
    found = await shop.captured(a=a, c=c)
    assert [before["b"].source_epoch, found["c"].source_epoch] == [2, 3]
    assert bodies(await shop.changes(found["c"], 1)) == [("1", "of c")]
