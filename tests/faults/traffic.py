"""Seeded load from outside: submissions and deletions over librdkafka, and an application that writes its own tables.

It records what the broker and the databases accepted. It uses nothing of crossfade's codec.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Producer

from schemas.settings import Connector
from tests.contract.legacy_places import Connection
from tests.flow.foreign import SUBMITTED_TYPE
from topics.catalogue import SUBMITTED

RETRY_BOUND_S = 120.0
STATEMENT_BOUND_S = 15.0
REFUSED_LINE = 5_000
DIRECT_PAUSE_S = 0.2
SUBMIT_PAUSE_S = 0.2
WORDS = (
    "ant",
    "birch",
    "cedar",
    "dune",
    "ember",
    "fjord",
    "grove",
    "heath",
    "inlet",
    "juniper",
    "kelp",
    "lagoon",
    "maple",
)
# Documents by their writer: producers only, the application only, both, or producers whose changes may be refused.
POOLS = {"sent": 10, "own": 6, "both": 10, "refused": 3}


@dataclass(slots=True)
class Sent:
    """One submission. `stamp` is None for a deletion. Partition and offset are known once the broker accepted it."""

    event_id: str
    store: str
    document_id: str
    stamp: str | None
    refused: bool
    partition: int = -1
    offset: int = -1
    error: str | None = None


@dataclass
class Books:
    """The writes to one table: submissions by event id, and the application's last stamp for each document."""

    sent: dict[str, Sent] = field(default_factory=dict)
    direct: dict[str, str | None] = field(default_factory=dict)
    direct_writes: int = 0

    def last_sent(self) -> dict[str, Sent]:
        """Return the last accepted submission of each document, in the order of the broker's offsets."""
        last: dict[str, Sent] = {}
        for one in self.sent.values():
            if one.document_id not in last or one.offset > last[one.document_id].offset:
                last[one.document_id] = one
        return last


class Submitter:
    """A producer that waits until an outage is over. Delivery callbacks run in the thread that polls or flushes."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "delivery.timeout.ms": int(RETRY_BOUND_S * 1000),
                "reconnect.backoff.max.ms": 500,
                "linger.ms": 2,
            }
        )

    def submit(self, sent: Sent, data: dict[str, object] | None) -> None:
        """Hand one submission to the producer. `data` of None deletes the document."""
        headers = {
            "ce_specversion": "1.0",
            "ce_id": sent.event_id,
            "ce_source": "test/faults",
            "ce_type": SUBMITTED_TYPE,
            "content-type": "application/json",
        }

        def delivered(error: Any, message: Any) -> None:
            sent.error = str(error) if error else None
            if not error:
                sent.partition, sent.offset = message.partition(), message.offset()

        value = None if data is None else json.dumps(data).encode()
        key = f"{sent.store}/{sent.document_id}".encode()
        raw: list[tuple[str, str | bytes | None]] = [(name, text.encode()) for name, text in headers.items()]
        self._producer.produce(SUBMITTED, value, key, headers=raw, on_delivery=delivered)
        self._producer.poll(0)

    async def settled(self) -> None:
        """Wait until the broker has answered every submission."""
        left = await asyncio.to_thread(self._producer.flush, RETRY_BOUND_S)
        assert left == 0, f"{left} submissions were neither accepted nor refused"


def body_of(rng: random.Random) -> str:
    """Return a text of a few words, or of some chunks."""
    return " ".join(rng.choices(WORDS, k=rng.choice((4, 8, 12, 40, 90)))) + "."


class Application:
    """The owner of one table. It writes on its own connection, and repeats each write until it succeeds."""

    def __init__(self, connector: Connector, dsn: str, table: str, books: Books) -> None:
        self._connector: Connector = connector
        self._dsn, self._table, self._books = dsn, table, books
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()  # neither driver lets two tasks use a connection at once

    async def put(self, document_id: str, stamp: str, body: str, line: int) -> None:
        """Insert or replace a row."""
        values = f"('{document_id}', '{stamp}', '{body}', 'direct', {line})"
        columns = "(id, title, body, kind, line)"
        if self._connector == "postgres":
            sets = "title = excluded.title, body = excluded.body, kind = excluded.kind, line = excluded.line"
            tail = f"on conflict (id) do update set {sets}"
        else:
            sets = ", ".join(f"{name} = values({name})" for name in ("title", "body", "kind", "line"))
            tail = f"on duplicate key update {sets}"
        await self.execute(f"insert into {self._table} {columns} values {values} {tail}")
        self._books.direct[document_id] = stamp
        self._books.direct_writes += 1

    async def delete(self, document_id: str) -> None:
        await self.execute(f"delete from {self._table} where id = '{document_id}'")
        self._books.direct[document_id] = None
        self._books.direct_writes += 1

    async def execute(self, statement: str) -> None:
        """Execute a statement until the database accepts it, one at a time. A statement may take effect twice."""
        deadline = time.monotonic() + RETRY_BOUND_S
        async with self._turn:
            while True:
                try:
                    async with asyncio.timeout(STATEMENT_BOUND_S):
                        if self._connection is None:
                            self._connection = await Connection.open(self._connector, self._dsn)
                        return await self._connection.execute(statement)
                except Exception:  # both drivers raise many kinds for a server that went away
                    await self.close()
                    if time.monotonic() > deadline:
                        raise
                    await asyncio.sleep(0.2)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                async with asyncio.timeout(2):
                    await connection.close()
            except Exception:  # noqa: S110 - the connection is discarded anyway
                pass


@dataclass
class Store:
    """One collection under load."""

    name: str
    connector: Connector
    books: Books
    application: Application


class Traffic:
    """The load of one trial: a few operations per turn on all stores, until the `stop` event is set."""

    def __init__(self, rng: random.Random, stores: list[Store], submitter: Submitter, label: str) -> None:
        self._rng, self._stores, self._submitter, self._label = rng, stores, submitter, label
        self._number = 0
        self.events = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Produce load until `stop` is set. Return once the broker has answered every submission."""

        async def direct(store: Store) -> None:
            while not stop.is_set():
                await self._write_directly(store)
                await asyncio.sleep(DIRECT_PAUSE_S)

        async def submissions() -> None:
            while not stop.is_set():
                self._submit_some()
                await asyncio.sleep(SUBMIT_PAUSE_S)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(submissions())
            for store in self._stores:
                tasks.create_task(direct(store))
        await self._submitter.settled()

    def stamp(self) -> str:
        self._number += 1
        return f"{self._label}.{self._number}"

    def _submit_some(self) -> None:
        for _ in range(self._rng.randint(1, 3)):
            pool = self._rng.choices(("sent", "both", "refused"), (5, 4, 1))[0]
            document_id = f"{pool}-{self._rng.randrange(POOLS[pool])}"
            self.submit(self._rng.choice(self._stores), document_id, delete=self._rng.random() < 0.15)

    def submit(self, store: Store, document_id: str, *, delete: bool = False) -> Sent:
        """Submit one document, or its deletion."""
        refused = document_id.startswith("refused") and not delete and self._rng.random() < 0.5
        stamp = None if delete else self.stamp()
        sent = Sent(uuid.uuid4().hex, store.name, document_id, stamp, refused)
        store.books.sent[sent.event_id] = sent
        data: dict[str, object] | None = None
        if stamp is not None:
            data = {
                "collection": store.name,
                "id": document_id,
                "text": {"title": stamp, "body": body_of(self._rng)},
                "metadata": {"kind": "sent", "line": REFUSED_LINE if refused else self._rng.randrange(900)},
            }
        self._submitter.submit(sent, data)
        self.events += 1
        return sent

    async def _write_directly(self, store: Store) -> None:
        pool = self._rng.choice(("own", "both"))
        document_id = f"{pool}-{self._rng.randrange(POOLS[pool])}"
        self.events += 1
        if self._rng.random() < 0.2:
            await store.application.delete(document_id)
        else:
            await store.application.put(document_id, self.stamp(), body_of(self._rng), self._rng.randrange(900))
