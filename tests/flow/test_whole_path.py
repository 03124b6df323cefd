"""The whole path on real parts: rows captured, documents submitted as another language would, questions answered."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import asyncpg
import httpx
import pytest
from confluent_kafka import Consumer, Producer

from operations.commands.pipeline import verify_collection
from operations.stack.layout import StackAddresses
from operations.verifying import Bounds, Verification
from schemas.settings import Settings
from tests.flow.worker_process import mend, running_worker, settings_of
from topics.catalogue import ANSWERED, ASKED, SUBMITTED, WRITTEN, dead_letter_topic

pytestmark = pytest.mark.stack
NAME = "flow_docs"
WAIT_S = 60.0


@dataclass(frozen=True)
class Installation:
    """What a test of the whole path uses."""

    settings: Settings
    home: Path
    sql: asyncpg.Connection[asyncpg.Record]
    port: int

    async def verify(self, *, repair: bool = False) -> Verification:
        return await verify_collection(self.settings, self.home, NAME, Bounds(100, 1.0), repair=repair)


@pytest.fixture(scope="module")
async def path(
    stack: StackAddresses, stack_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Installation]:
    config = tmp_path_factory.mktemp("flow") / "crossfade.toml"
    config.write_text(
        f'[kafka]\ncapture_prefix = "flow.capture"\n[collections.{NAME}]\ntable = "{NAME}"\nkey = ["id"]\n'
        'text = ["title", "body"]\nmetadata = ["kind", "line"]\n'
    )
    sql = await asyncpg.connect(stack.postgres)
    await sql.execute(
        f"create table {NAME} (id text primary key, title text, body text, kind text, line int check (line < 1000))"
    )
    await sql.executemany(
        f"insert into {NAME} values ($1, $2, $3, 'number', $4)",
        [(f"row-{n}", f"title {n}", f"The body of row {n}, which tells of nothing else.", n) for n in range(50)],
    )
    settings = settings_of(config, stack_home)
    await mend(settings)
    async with running_worker(config, stack_home) as port:
        yield Installation(settings, stack_home, sql, port)
    await sql.close()


async def eventually(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not await holds():  # noqa: ASYNC110  # what is awaited is in other processes
                await asyncio.sleep(0.2)
    except TimeoutError:
        pytest.fail(f"after {WAIT_S:.0f} s still not: {what}")


class Foreign:
    """A producer and consumer of another client library (librdkafka), with nothing of crossfade in it."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.producer = Producer({"bootstrap.servers": bootstrap})

    def send(self, topic: str, key: str, data: object, event_type: str, **headers: str) -> str:
        event_id = uuid.uuid4().hex
        all_headers = {
            "ce_specversion": "1.0",
            "ce_id": event_id,
            "ce_source": "test/foreign",
            "ce_type": event_type,
            "content-type": "application/json",
            **headers,
        }
        value = None if data is None else json.dumps(data).encode()
        self.producer.produce(topic, value, key.encode(), headers=[(k, v.encode()) for k, v in all_headers.items()])
        assert self.producer.flush(10) == 0
        return event_id

    def submit(self, document_id: str, **data: object) -> str:
        whole = {"collection": NAME, "id": document_id, **data}
        return self.send(SUBMITTED, f"{NAME}/{document_id}", whole, "crossfade.document.submitted.v1")

    def read_until(self, topic: str, found: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": uuid.uuid4().hex,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        consumer.subscribe([topic])
        try:
            for _ in range(int(WAIT_S * 10)):
                message = consumer.poll(0.1)
                value = message.value() if message is not None and not message.error() else None
                if message is None or value is None:
                    continue
                data = json.loads(value)
                if found(data):
                    return {**data, "headers": dict(cast("list[tuple[str, bytes]]", message.headers() or []))}
        finally:
            consumer.close()
        pytest.fail(f"nothing fitting on {topic} within {WAIT_S:.0f} s")


@pytest.fixture
def foreign(stack: StackAddresses) -> Foreign:
    return Foreign(stack.kafka)


def is_of(data: dict[str, object], **expected: object) -> bool:
    return all(data[name] == value for name, value in expected.items())


async def holds_the_same(path: Installation, documents: int) -> None:
    last: list[Verification] = []

    async def same() -> bool:
        last[:] = [await path.verify()]
        return last[0].found == 0 and last[0].legacy_documents == last[0].vector_documents == documents

    await eventually(same, f"both stores hold the same {documents} documents")


async def test_rows_that_were_there_before_are_in_qdrant_by_the_snapshot(path: Installation) -> None:
    await holds_the_same(path, 50)


async def test_a_submitted_document_is_in_the_table_and_found_by_both_backends(
    path: Installation, foreign: Foreign
) -> None:
    cause = foreign.submit(
        "elephant",
        text={"title": "Elephants", "body": "Elephants are the largest land animals alive today."},
        metadata={"kind": "animal", "line": 7},
    )
    for store in ("legacy", "qdrant"):
        told = await asyncio.to_thread(foreign.read_until, WRITTEN, partial(is_of, cause=cause, store=store))
        assert told["outcome"] == "applied"
    row = await path.sql.fetchrow(f"select * from {NAME} where id = 'elephant'")
    assert row is not None
    assert (row["title"], row["kind"], row["line"]) == ("Elephants", "animal", 7)
    assert row["crossfade_version"] == told["version"]
    for route in ("legacy", "qdrant"):
        query_id = uuid.uuid4().hex
        question = {"id": query_id, "collection": NAME, "text": "largest land animals", "route": route}
        foreign.send(ASKED, query_id, question, "crossfade.query.asked.v1")
        answer = await asyncio.to_thread(foreign.read_until, ANSWERED, partial(is_of, query_id=query_id))
        assert (answer["served_by"], answer["degraded"]) == (route, False)
        hits = answer["hits"]
        assert isinstance(hits, list)
        assert hits[0]["document_id"] == "elephant"


async def test_direct_writes_reach_qdrant_and_never_come_back(path: Installation) -> None:
    await path.sql.execute(f"update {NAME} set body = 'Changed by the application itself.' where id = 'row-1'")
    await path.sql.execute(f"delete from {NAME} where id = 'row-2'")
    await path.sql.execute(f"insert into {NAME} values ('direct', 'direct', 'Inserted by SQL.', 'sql', 1)")
    rows = await path.sql.fetchval(f"select count(*) from {NAME}")
    await holds_the_same(path, rows)
    assert await path.sql.fetchval(f"select crossfade_version from {NAME} where id = 'direct'") is None


async def test_a_null_value_deletes_in_both_stores(path: Installation, foreign: Foreign) -> None:
    rows = await path.sql.fetchval(f"select count(*) from {NAME}")
    foreign.send(SUBMITTED, f"{NAME}/row-3", None, "crossfade.document.submitted.v1")

    async def gone() -> bool:
        return bool(await path.sql.fetchval(f"select count(*) from {NAME} where id = 'row-3'") == 0)

    await eventually(gone, "the row is gone")
    await holds_the_same(path, rows - 1)


async def test_bad_events_are_answered_and_kept_and_the_rest_goes_on(path: Installation, foreign: Foreign) -> None:
    rows = await path.sql.fetchval(f"select count(*) from {NAME}")
    cause = foreign.submit("bad", text={"title": "x"}, metadata={"no_such_column": 1})
    foreign.send(SUBMITTED, f"{NAME}/broken", "no object", "crossfade.document.submitted.v1")
    foreign.submit("after", text={"title": "after", "body": "What follows a bad event is still written."})
    told = await asyncio.to_thread(foreign.read_until, WRITTEN, lambda d: d["cause"] == cause)
    assert (told["outcome"], told["store"]) == ("dead_lettered", None)
    assert "no_such_column" in str(told["error"])
    kept = await asyncio.to_thread(foreign.read_until, dead_letter_topic(SUBMITTED), lambda d: d.get("id") == "bad")
    headers = kept["headers"]
    assert isinstance(headers, dict)
    assert headers["__connect.errors.topic"] == SUBMITTED.encode()
    await holds_the_same(path, rows + 1)


async def test_what_the_table_refuses_is_kept_and_qdrant_goes_back_to_the_row(
    path: Installation, foreign: Foreign
) -> None:
    cause = foreign.submit(
        "row-4", text={"title": "refused", "body": "The check constraint forbids this."}, metadata={"line": 5000}
    )
    told = await asyncio.to_thread(
        foreign.read_until, WRITTEN, lambda d: d["cause"] == cause and d["store"] == "legacy"
    )
    assert told["outcome"] == "dead_lettered"
    assert await path.sql.fetchval(f"select title from {NAME} where id = 'row-4'") == "title 4"
    await holds_the_same(path, await path.sql.fetchval(f"select count(*) from {NAME}"))


async def test_the_worker_says_that_it_is_ready_and_counts(path: Installation) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{path.port}", trust_env=False) as client:
        ready = await client.get("/readyz")
        metrics = await client.get("/metrics")
    assert ready.status_code == 200, ready.text
    assert "crossfade_documents" in metrics.text
