"""Shared by the end-to-end tests: one worker on the session's stack, and a table in each database per purpose.

Names are new in every run, so that a stack can be used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from connectors.telemetry import Telemetry
from domain.points import StoredChunk
from migration.collection import CollectionPorts, CollectionStores
from migration.context import HandlerContext, now_ms
from migration.opener import Opened, open_stores
from migration.verify.options import Bounds, RoundOptions
from migration.verify.publish import DifferencePublisher
from migration.verify.recheck import at_rest
from migration.verify.result import Verification
from migration.verify.run import verify
from schemas.settings import Connector
from tests.contract.legacy_places import Connection
from tests.flow.foreign import SUBMITTED_TYPE, WAIT_S, Foreign, Seen
from tests.flow.otlp_receiver import SpanReceiver
from tests.flow.worker_process import WorkerProcess, command
from topics.catalogue import SUBMITTED, WRITTEN

DOCUMENTS: dict[Connector, str] = {
    "postgres": """create table {t} (id text collate "C" primary key, title varchar(40), body text, kind text,
        line int check (line < 1000))""",
    "mariadb": """create table {t} (id varchar(200) collate utf8mb4_nopad_bin primary key, title varchar(40), body text,
        kind varchar(40), line int check (line < 1000), fulltext index (title, body)) character set utf8mb4""",
}
DOCUMENT_LINES = 'text = ["title", "body"]\nmetadata = ["kind", "line"]\n'


@dataclass(frozen=True)
class Table:
    """A table to create before the worker starts, and the lines that describe it in `crossfade.toml`."""

    purpose: str
    connector: Connector
    create: str
    lines: str = DOCUMENT_LINES
    rows: tuple[str, ...] = ()


def document_rows(count: int) -> tuple[str, ...]:
    return tuple(
        f"('row-{n}', 'title {n}', 'The body of row {n}, which tells of nothing else.', 'number', {n})"
        for n in range(count)
    )


async def eventually(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not await holds():  # noqa: ASYNC110  # the condition depends on other processes
                await asyncio.sleep(0.2)
    except TimeoutError:
        pytest.fail(f"after {WAIT_S:.0f} s still not: {what}")


@dataclass(frozen=True)
class Site:
    """A running worker, and everything needed to act on it from outside."""

    config: Path
    home: Path
    run: str
    opened: Opened
    worker: WorkerProcess
    foreign: Foreign
    spans: SpanReceiver
    connections: dict[Connector, Connection]

    def store(self, purpose: str, connector: Connector) -> Store:
        return Store(self, collection_name(self.run, purpose, connector), connector)


def collection_name(run: str, purpose: str, connector: Connector) -> str:
    return f"flow_{run}_{purpose}_{connector}"


@dataclass(frozen=True)
class Store:
    """One collection of the site. `{t}` in a statement stands for its table."""

    site: Site
    name: str
    connector: Connector

    @property
    def ports(self) -> CollectionPorts:
        return self.site.opened.collections[self.name]

    async def execute(self, statement: str) -> None:
        await self.site.connections[self.connector].execute(statement.replace("{t}", self.name))

    async def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        return await self.site.connections[self.connector].fetch(statement.replace("{t}", self.name))

    async def value(self, statement: str) -> Any:
        return (await self.fetch(statement))[0][0]

    async def count(self) -> int:
        return int(await self.value("select count(*) from {t}"))

    @asynccontextmanager
    async def uncaptured(self) -> AsyncIterator[None]:
        """Hide the statements inside from change capture, as a lost slot or a purged binary log would."""
        if self.connector == "mariadb":
            before, after = "set session sql_log_bin = 0", "set session sql_log_bin = 1"
        else:
            publication = self.ports.capture.slot if self.ports.capture else ""
            before = f"alter publication {publication} drop table {{t}}"
            after = f"alter publication {publication} add table {{t}}"
        await self.execute(before)
        try:
            yield
        finally:
            await self.execute(after)

    def submit(self, document_id: str, **data: object) -> str:
        return self.site.foreign.submit(self.name, document_id, **data)

    def delete(self, document_id: str, **headers: str) -> str:
        return self.site.foreign.send(SUBMITTED, f"{self.name}/{document_id}", None, SUBMITTED_TYPE, **headers)

    async def written(self, cause: str, store: str | None) -> Seen:
        """Wait for the outcome of a producer's event in a store, and return it."""
        return await self.site.foreign.found(WRITTEN, lambda s: (s.data["cause"], s.data["store"]) == (cause, store))

    async def applied(self, document_id: str, **data: object) -> Seen:
        """Submit a document, and return its outcome in Qdrant once both stores have it."""
        cause = self.submit(document_id, **data)
        for store in ("legacy", "qdrant"):
            reported = await self.written(cause, store)
            assert reported.data["outcome"] == "applied", reported.data
        return reported

    async def points(self, document_id: str) -> Sequence[StoredChunk]:
        """Return the visible points of a document, with text and vector."""
        found = await self.ports.vectors.stored(self.name, [document_id], content=True)
        return [point for point in found.get(document_id, ()) if not point.deleted]

    async def verify(self, *, recheck_delay_s: float = 0.5) -> Verification:
        """Compare now, without waiting for changes in flight. Keep no digests, and compute no vector again."""
        async with AsyncExitStack() as opened:
            stores = await open_stores(opened, self.site.opened.settings, self.site.home, self.name)
            return await self.verify_by(stores, recheck_delay_s=recheck_delay_s)

    async def verify_by(self, stores: CollectionStores, *, recheck_delay_s: float = 0.5) -> Verification:
        """Compare in the same way, with stores that are already open."""
        ctx = HandlerContext(now_ms, self.site.opened.epochs.version, Telemetry(tracing=False))
        way = RoundOptions(Bounds(100, recheck_delay_s), at_rest, now_ms)
        publisher = DifferencePublisher(stores, self.site.opened.bus, ctx, repair=False)
        return await verify(replace(stores, tasks=None), way, publisher)

    async def holds_the_same(self, documents: int) -> None:
        last: list[Verification] = []

        async def same() -> bool:
            last[:] = [await self.verify()]
            return last[0].found == 0 and last[0].legacy_documents == last[0].vector_documents == documents

        await eventually(same, f"both stores of {self.name} hold the same {documents} documents")

    async def command(self, *arguments: str, failpoint: str = "") -> tuple[int, str]:
        return await command(self.site.config, self.site.home, *arguments, failpoint=failpoint)
