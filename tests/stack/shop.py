"""Separate databases of a test on the session's stack, with tables of one name, captured without a worker."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from aiokafka import AIOKafkaConsumer, TopicPartition

from connectors.debezium.changes import decode_capture
from connectors.kafka.admin import topic_names
from connectors.kafka.bus import AiokafkaBus
from connectors.kafka.connect import ConnectClient
from connectors.memory.bus import MemoryBus
from connectors.sql.databases import open_legacy
from migration.capture.connectors import groups, make_connector
from migration.capture.names import assign_captures, databases_of
from migration.collection import CollectionPorts
from migration.epochs import Epochs
from migration.opener import Opened
from migration.state import CollectionState
from schemas.documents import DocumentChanged
from schemas.records import Received
from schemas.settings import Collection, Connector, Kafka, Settings
from stack.layout import StackAddresses
from tests.contract.legacy_places import Connection
from tests.faults.closing import forget_captures
from topics.captures import origin_of
from topics.provisioning import SOURCES_SEEN

_BOUND_S = 30.0
NOTHING: Any = None
TABLES = {
    "postgres": """create table articles (id int primary key, title text, body text, unused text,
        crossfade_version bigint); alter table articles replica identity full""",
    "mariadb": """create table articles (id int primary key, title text, body longtext, unused longtext,
        crossfade_version bigint null invisible)""",
}


@dataclass
class Shop:
    """Databases of this test, an `articles` table in each, and the collections on them."""

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

    async def opened(self, **collections: Collection) -> Opened:
        """Open collections, but only as far as their capture requires."""
        kafka = self.kafka
        ports = {}
        for name, collection in collections.items():
            legacy = await open_legacy(name, collection, collection.dsn or "")
            self.resources.push_async_callback(legacy.close)
            await legacy.prepare()
            capture = await CollectionState(legacy.ledger, name).capture(kafka, collection)
            ports[name] = CollectionPorts(
                name,
                legacy.table,
                legacy.bulk,
                legacy.ledger,
                NOTHING,
                0,
                settings=collection,
                embedder=NOTHING,
                text_search=NOTHING,
                capture=capture,
            )
        settings, bus = Settings(kafka=kafka, collections=collections), cast(AiokafkaBus, MemoryBus({SOURCES_SEEN: 1}))
        return Opened(settings, bus, NOTHING, ports, Epochs(), AsyncExitStack())

    async def captured(self, **collections: Collection) -> dict[str, CollectionPorts]:
        """Start capture of collections, as a worker would. Return their ports once the connectors run."""
        opened = await self.opened(**collections)
        databases, _ = await databases_of(opened.collections)
        await assign_captures(opened, databases, await topic_names(self.stack.kafka), lambda _: None)
        async with ConnectClient(self.stack.connect) as client:
            for group in groups(opened.collections):
                await make_connector(client, self.kafka, group, keep=True)
            for group in groups(opened.collections):
                await client.wait_running(group.connector, _BOUND_S)
        return opened.collections

    @property
    def kafka(self) -> Kafka:
        address = {"bootstrap": self.stack.kafka, "connect": self.stack.connect}
        return Kafka(
            **address, partitions=1, capture_prefix=self.prefix, max_text_bytes=100_000, max_record_bytes=1_500_000
        )

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
        except TimeoutError as error:
            raise AssertionError(f"{topic} has not {count} records: {await self.connectors()}") from error
        finally:
            await consumer.stop()
        return [Received(r.topic, r.partition, r.offset, r.key, r.value, tuple(r.headers)) for r in found]

    async def connectors(self) -> list[str]:
        """Return the states of this shop's connectors."""
        async with ConnectClient(self.stack.connect) as client:
            names = [name for name in await client.names() if await self._is_own(client, name)]
            return [str(await client.status(name)) for name in names]

    async def _is_own(self, client: ConnectClient, name: str) -> bool:
        return (await client.config(name)).get("topic.prefix", "").startswith(self.prefix)

    async def changes(self, ports: CollectionPorts, count: int) -> list[DocumentChanged]:
        """Return the first changes of a collection, as the capture role reads them."""
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


@asynccontextmanager
async def shop_on(stack: StackAddresses) -> AsyncIterator[Shop]:
    """Yield a shop. Remove its databases, connectors and slots at the end."""
    made = Shop(stack)
    async with made.resources:
        yield made
        await forget_captures(stack, made.prefix)
