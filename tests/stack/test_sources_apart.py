"""Tables of one name in several databases and servers are captured apart, on the session's stack, without a worker."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from agents.assembly import Opened, capture_of
from agents.batch import CollectionPorts
from agents.identities import Epochs
from connectors.database_identity import database_identity
from connectors.debezium import ForeignChange, decode_capture
from connectors.kafka.admin import topic_names
from connectors.legacy_connector import open_legacy
from operations.captures import assign_captures, databases_of
from operations.capturing import groups, make_connector
from operations.connectors_api import ConnectClient
from operations.stack.layout import StackAddresses
from schemas.documents import DocumentChanged
from schemas.records import Received
from schemas.settings import Collection, Connector, Kafka, Settings
from tests.contract.legacy_places import Connection
from tests.faults.closing import forget_captures
from topics.captures import origin_of

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]
_BOUND_S = 60.0
NOTHING: Any = None
TABLES = {
    "postgres": """create table articles (id int primary key, title text, body text, unused text,
        crossfade_version bigint); alter table articles replica identity full""",
    "mariadb": """create table articles (id int primary key, title text, body longtext, unused longtext,
        crossfade_version bigint null invisible)""",
}


@dataclass
class Shop:
    """Databases of this test, an `articles` table in each, and the collections over them."""

    stack: StackAddresses
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    connections: dict[str, Connection] = field(default_factory=dict)
    resources: AsyncExitStack = field(default_factory=AsyncExitStack)

    def dsn(self, connector: Connector, database: str) -> str:
        address = str(getattr(self.stack, connector))
        return urlsplit(address)._replace(path=f"/{self.name(database)}").geturl()

    def name(self, database: str) -> str:
        return f"{database}_{self.run}"

    async def database(self, connector: Connector, database: str) -> Connection:
        server = await Connection.open(connector, str(getattr(self.stack, connector)))
        self.resources.push_async_callback(server.close)
        await server.execute(f"create database {self.name(database)}")
        drop = f"drop database {self.name(database)}" + (" with (force)" if connector == "postgres" else "")
        self.resources.push_async_callback(server.execute, drop)
        made = await Connection.open(connector, self.dsn(connector, database))
        self.resources.push_async_callback(made.close)
        for statement in TABLES[connector].split(";"):
            await made.execute(statement)
        self.connections[database] = made
        return made

    def collection(self, connector: Connector, database: str, **settings: Any) -> Collection:
        values = {"table": "articles", "key": ("id",), "text": ("title", "body")} | settings
        return Collection(connector=connector, dsn=self.dsn(connector, database), **values)

    async def captured(self, **collections: Collection) -> dict[str, CollectionPorts]:
        """Have collections captured, as a worker would; return their ports when the connectors run."""
        kafka = Kafka(bootstrap=self.stack.kafka, connect=self.stack.connect, partitions=1, capture_prefix=self.prefix)
        ports = {}
        for name, collection in collections.items():
            legacy = await open_legacy(name, collection, collection.dsn or "")
            self.resources.push_async_callback(legacy.close)
            await legacy.prepare()
            capture = await capture_of(legacy.ledger, kafka, name, collection)
            rest = (NOTHING, NOTHING, NOTHING, NOTHING)
            ports[name] = CollectionPorts(name, collection, legacy.table, legacy.ledger, *rest, capture)
        opened = Opened(
            Settings(kafka=kafka, collections=collections), NOTHING, NOTHING, ports, Epochs(), AsyncExitStack()
        )
        databases = await databases_of(ports)
        await assign_captures(opened, databases, await topic_names(self.stack.kafka), lambda _: None)
        async with ConnectClient(self.stack.connect) as client:
            for group in groups(opened.collections):
                await make_connector(client, kafka, group, keep=True)
            for group in groups(opened.collections):
                await client.wait_running(group.connector, _BOUND_S)
        return opened.collections

    @property
    def prefix(self) -> str:
        return f"apart.{self.run}"

    async def records(self, topic: str, count: int) -> list[Received]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.stack.kafka, auto_offset_reset="earliest", max_partition_fetch_bytes=32 * 1024 * 1024
        )
        await consumer.start()
        try:
            consumer.assign([TopicPartition(topic, 0)])
            found = [await asyncio.wait_for(consumer.getone(), _BOUND_S) for _ in range(count)]
        finally:
            await consumer.stop()
        return [Received(r.topic, r.partition, r.offset, r.key, r.value, tuple(r.headers)) for r in found]

    async def changes(self, ports: CollectionPorts, count: int) -> list[DocumentChanged]:
        """Return the first changes of a collection as the capture role reads them."""
        assert ports.capture is not None
        records = await self.records(ports.capture.topic, count)
        found = [decoded(record, ports) for record in records]
        return [changed for changed in found if changed is not None]


def decoded(record: Received, ports: CollectionPorts) -> DocumentChanged | None:
    assert ports.capture is not None
    origin = origin_of(ports.capture, ports.settings)
    description = ports.table.description
    return decode_capture(record, ports.name, ports.settings, description, ports.source_epoch, origin)


def bodies(changes: Sequence[DocumentChanged]) -> list[tuple[str, str | None]]:
    return [(change.id, change.content.text["body"] if change.content else None) for change in changes]


@pytest.fixture
async def shop(stack: StackAddresses) -> AsyncIterator[Shop]:
    made = Shop(stack)
    async with made.resources:
        yield made
        await forget_captures(stack, made.prefix)


@pytest.mark.parametrize("connector", ["postgres", "mariadb"])
async def test_one_table_of_two_databases_of_a_server_is_captured_apart(connector: Connector, shop: Shop) -> None:
    for database in ("acme", "globex"):
        await (await shop.database(connector, database)).execute(
            f"insert into articles (id, title, body) values (42, 't', 'of {database}')"
        )
    found = await shop.captured(acme=shop.collection(connector, "acme"), globex=shop.collection(connector, "globex"))
    for database, ports in found.items():
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
    with pytest.raises(ForeignChange, match="name"):  # also where the database has the same name on another server
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
