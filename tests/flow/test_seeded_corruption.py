"""A thousand corruptions of all kinds are found while both databases are written to: none missed, no false alarm."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from domain.quarantine import Reason
from migration.state import CollectionState
from schemas.settings import Connector
from stack.stack import ALL_PARTS, LocalStack
from tests.contract.legacy_places import DATABASES, Connection
from tests.flow.damage import KINDS, Damage
from tests.flow.site import Site, Store

pytestmark = pytest.mark.stack
SEED = 7
CORRUPTIONS = 500  # in each database
LIVE = 60


@pytest.fixture(scope="module")
async def stores(site: Site) -> AsyncIterator[dict[Connector, Store]]:
    found = {connector: site.store("damaged", connector) for connector in DATABASES}
    for store in found.values():
        await store.holds_the_same(await store.count())
    yield found
    # If a missing point is one of the collection's witnesses, the worker quarantines the collection, and rightly.
    code, output = await store.command("recapture", *(store.name for store in found.values()))
    assert code == 0, output
    for store in found.values():
        await store.holds_the_same(await store.count())


@pytest.fixture(params=DATABASES)
def store(stores: dict[Connector, Store], request: pytest.FixtureRequest) -> Store:
    return stores[request.param]


async def test_every_corruption_is_found_and_nothing_else_while_writes_go_on(store: Store) -> None:
    ids = [row[0] for row in await store.fetch("select id from {t} where id like 'row-%' order by id")]
    await store.command("verify", store.name, "--sample", "0")  # so that the next one reads no unchanged row
    async with writes(store):
        damage = await damaged(store, random.Random(SEED).sample(ids, CORRUPTIONS))
        for rows in ((), ("--full",)):
            if rows:  # as the worker does if a damaged point is one of the collection's witnesses
                await CollectionState(store.ports.ledger, store.name).set_reason(Reason.POINTS_REPLACED)
            code, output = await store.command(
                "verify", store.name, "--json", "--sample", "0", "--recheck-timeout", "45", *rows
            )
            assert code == 3, output
            document = json.loads(output)
            check(document, damage.expected)
            assert (document["differences"], document["unknown"]) == (CORRUPTIONS, 0)


def check(document: dict[str, Any], expected: dict[str, str]) -> None:
    found = {each["id"]: each["kind"] for each in document["listed"]}
    missed = {one: kind for one, kind in expected.items() if found.get(one) != kind}
    alarms = [each for each in document["listed"] if each["id"] not in expected]
    assert (missed, alarms) == ({}, [])
    reported = Counter(each["detail"].partition(":")[0] for each in document["listed"])
    assert {"no visible point", "no legacy row", "content hash", "wrong vector", "wrong payload"} <= set(reported)
    assert reported["duplicate chunk"] >= CORRUPTIONS // len(KINDS)


async def damaged(store: Store, ids: list[str]) -> Damage:
    """Damage documents in the engine's files, while the worker waits for its store."""
    part = LocalStack(store.site.home, ALL_PARTS).part("qdrant")
    await part.stop()
    try:
        damage = await asyncio.to_thread(Damage, store.site.home, store.name, SEED)
        try:
            damage.spread(ids)
        finally:
            damage.close()
    finally:
        await part.start(lambda _: None)
    return damage


@asynccontextmanager
async def writes(store: Store) -> AsyncIterator[None]:
    """Insert, change and delete rows other than the damaged ones, by SQL and by events, until the end of the block."""
    dsn = store.ports.settings.dsn or ""
    connection = await Connection.open(store.connector, dsn)
    writing = asyncio.create_task(_write(store, connection))
    try:
        yield
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        await connection.close()


async def _write(store: Store, connection: Connection) -> None:
    chosen = random.Random(SEED)
    embedding = (await store.fetch("select e from {t} limit 1"))[0][0]
    literal = f"x'{embedding.hex()}'" if store.connector == "mariadb" else f"'\\x{embedding.hex()}'"
    for turn in range(1_000_000):
        name = f"live-{chosen.randrange(LIVE)}"
        kind = chosen.randrange(4)
        if kind == 0:
            store.submit(name, text=f"submitted in turn {turn}", metadata={"line": turn})
        elif kind == 1:
            await connection.execute(f"delete from {store.name} where id = '{name}'")
        else:
            change = (
                "on conflict (id) do update set body = excluded.body"
                if store.connector == "postgres"
                else "on duplicate key update body = values(body)"
            )
            row = f"('{name}', 'written in turn {turn}', {turn}, {literal})"
            columns = "(id, body, line, e)"
            await connection.execute(f"insert into {store.name} {columns} values {row} {change}")
        await asyncio.sleep(0.05)
