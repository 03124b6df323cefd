"""A topic that was deleted and created again: nothing is folded, nothing is lost, and one command resumes the work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from connectors.kafka.admin import delete_topics, existing_topics, provision
from schemas.settings import Connector
from stack.layout import StackAddresses
from tests.contract.legacy_places import Connection
from tests.faults.closing import Closing, closing
from tests.flow.foreign import Foreign
from tests.flow.site import eventually
from tests.flow.worker_process import settings_of
from topics.captures import Capture
from topics.catalogue import EMBEDDED, LOG, RESOLVED, SUBMITTED
from topics.provisioning import DesiredTopic, captured_topics, desired_topics, plan

HERE: dict[Connector, str] = {"postgres": "current_schema()", "mariadb": "schema()"}
pytestmark = [pytest.mark.stack, pytest.mark.timeout(420)]


@pytest.fixture
async def ground(stack: StackAddresses, stack_home: Path, tmp_path: Path) -> AsyncIterator[Closing]:
    async with closing(stack, stack_home, tmp_path) as made:
        yield made
    # Databases of this stack that are not configured here still have records of the deleted topics.
    for connector, here in HERE.items():
        connection = await Connection.open(connector, str(getattr(stack, connector)))
        tables = f"select table_name from information_schema.tables where table_schema = {here}"
        if ("crossfade_identities",) in [tuple(row) for row in await connection.fetch(tables)]:
            for names in ("topic.%", "topics.replaced", "ends.%", "read.%"):
                await connection.execute(f"delete from crossfade_identities where name like '{names}'")
        await connection.close()


@pytest.fixture
def producer(stack: StackAddresses) -> Iterator[Foreign]:
    made = Foreign(stack.kafka)
    yield made
    made.close()


async def delete_and_make_again(ground: Closing, topics: Sequence[DesiredTopic]) -> None:
    """Delete topics with all their records, and create them again with the same configuration."""
    bootstrap = settings_of(ground.config, ground.home).kafka.bootstrap or ""
    names = [topic.name for topic in topics]
    await delete_topics(bootstrap, names)

    async def gone() -> bool:
        return not await existing_topics(bootstrap, names)

    await eventually(gone, "the topics are deleted")
    await provision(bootstrap, plan(topics, {}))


def working(ground: Closing, *names: str) -> list[DesiredTopic]:
    desired = [topic for topic in desired_topics(settings_of(ground.config, ground.home)) if topic.name in names]
    assert len(desired) == len(names)
    return desired


def submit(ground: Closing, producer: Foreign, document_id: str, body: str) -> None:
    text = {"title": "t", "body": body}
    producer.submit(ground.tables["a"].name, document_id, text=text, metadata={"kind": "note", "line": 1})


async def in_the_table(ground: Closing, document_id: str, body: str) -> None:
    async def there() -> bool:
        statement = f"select body from {ground.tables['a'].name} where id = '{document_id}'"
        return [row[0] for row in await ground.tables["a"].connection.fetch(statement)] == [body]

    await eventually(there, f"the table has {document_id}: {body}")


async def adopted(ground: Closing) -> None:
    code, output = await ground.command("topics", "adopt", "--yes")
    assert code == 0, output


async def proved(ground: Closing, *purposes: str) -> None:
    await ground.is_stopped(**dict.fromkeys(purposes, "points_replaced"))
    await ground.recapture(*purposes)
    await ground.is_stopped()


async def test_a_log_made_again_under_a_worker_folds_nothing_and_is_adopted(ground: Closing, producer: Foreign) -> None:
    await ground.configure({"a": "postgres", "b": "mariadb"})
    await ground.worker.start()
    submit(ground, producer, "row-1", "before")
    await in_the_table(ground, "row-1", "before")
    await ground.same("a", "b")
    assert (await ground.command("topics", "adopt", "--yes"))[0] == 1, "nothing was replaced"

    before = await ground.recorded_epochs()
    await delete_and_make_again(ground, working(ground, LOG))
    await ground.is_stopped(a="topic_replaced", b="topic_replaced")
    status, page = await ground.page()
    assert status == 503
    assert {each["mend"] for each in page["stopped"]} == {"crossfade topics adopt"}
    submit(ground, producer, "row-1", "while nothing is folded")
    for table in ground.tables.values():
        await table.execute("update {t} set body = 'changed meanwhile' where id = 'row-2'")
    assert (await ground.command("topics", "adopt"))[0] == 3, "it waits for a yes"
    await ground.is_stopped(a="topic_replaced", b="topic_replaced")

    await adopted(ground)
    await proved(ground, "a", "b")
    await in_the_table(ground, "row-1", "while nothing is folded")
    submit(ground, producer, "row-1", "after")
    await in_the_table(ground, "row-1", "after")
    await ground.same("a", "b")
    assert await ground.recorded_epochs() == (before[0] + 1, before[1])


@pytest.mark.long
async def test_a_database_that_is_away_holds_up_no_adoption_and_is_adopted_when_it_is_back(
    ground: Closing, producer: Foreign
) -> None:
    role = f"crossfade_{uuid4().hex[:6]}"
    administrator = await asyncpg.connect(ground.addresses.postgres)
    parts = urlsplit(ground.addresses.postgres)
    dsn = urlunsplit(parts._replace(netloc=f"{role}:first@{parts.hostname}:{parts.port}"))
    await administrator.execute(f"create role {role} superuser login password 'first'")
    try:
        await ground.configure({"a": "mariadb", "b": "postgres"}, dsns={"b": dsn})
        await ground.worker.start()
        await ground.same("a", "b")
        before = await ground.recorded_epochs()
        await administrator.execute(f"alter role {role} password 'second'")
        await administrator.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'")
        await ground.is_stopped(b="unreachable")
        await delete_and_make_again(ground, working(ground, LOG))
        await ground.is_stopped(a="topic_replaced", b="unreachable")
        code, output = await ground.command("topics", "adopt", "--yes")
        assert code == 0, output
        assert f"{ground.tables['b'].name} is left out" in output
        await ground.is_stopped(a="points_replaced", b="unreachable")
        await ground.recapture("a")
        submit(ground, producer, "row-1", "beside one that is away")
        await in_the_table(ground, "row-1", "beside one that is away")
        await ground.same("a")

        await administrator.execute(f"alter role {role} password 'first'")
        await ground.is_stopped(a="topic_replaced", b="topic_replaced")
        await adopted(ground)
        await proved(ground, "b")
        await ground.same("a", "b")
        assert (await ground.recorded_epochs())[0] == before[0] + 1
    finally:
        await administrator.close()


@pytest.mark.long
async def test_a_log_made_again_between_runs_quarantines_at_the_start(ground: Closing, producer: Foreign) -> None:
    await ground.configure({"a": "postgres"})
    await ground.worker.start()
    await ground.same("a")
    before = await ground.recorded_epochs()
    await ground.worker.stop()
    await delete_and_make_again(ground, working(ground, LOG))
    submit(ground, producer, "row-1", "while nothing ran")
    await ground.worker.start()
    await ground.is_stopped(a="topic_replaced")
    await ground.worker.stop()
    await ground.worker.start()
    await ground.is_stopped(a="topic_replaced")
    await adopted(ground)
    await proved(ground, "a")
    await in_the_table(ground, "row-1", "while nothing ran")
    await ground.same("a")
    assert await ground.recorded_epochs() == (before[0] + 1, before[1])


@pytest.mark.long
async def test_what_producers_submit_to_a_topic_made_again_takes_effect(ground: Closing, producer: Foreign) -> None:
    await ground.configure({"a": "postgres"})
    await ground.worker.start()
    for number in range(20):
        submit(ground, producer, "row-1", f"before {number}")
    await in_the_table(ground, "row-1", "before 19")
    before = await ground.recorded_epochs()
    await delete_and_make_again(ground, working(ground, SUBMITTED))
    # Its offset is far below those in the ledger: without a new epoch, it would be taken for a second delivery.
    submit(ground, producer, "row-1", "after")
    await ground.is_stopped(a="topic_replaced")
    await adopted(ground)
    await ground.is_stopped()
    await in_the_table(ground, "row-1", "after")
    await ground.same("a")
    assert await ground.recorded_epochs() == (before[0], before[1] + 1)


@pytest.mark.long
@pytest.mark.parametrize("topics", [[RESOLVED], [EMBEDDED], [SUBMITTED, LOG, RESOLVED, EMBEDDED]])
async def test_changes_on_the_way_to_the_writers_are_taken_again(
    ground: Closing, producer: Foreign, topics: list[str]
) -> None:
    await ground.configure({"a": "postgres"})
    await ground.worker.start()
    await ground.same("a")
    await ground.tables["a"].execute("update {t} set body = 'changed before' where id = 'row-2'")
    submit(ground, producer, "row-1", "submitted before")
    await delete_and_make_again(ground, working(ground, *topics))
    submit(ground, producer, "row-3", "submitted after")
    await ground.is_stopped(a="topic_replaced")
    await adopted(ground)
    await proved(ground, "a")
    await in_the_table(ground, "row-3", "submitted after")
    if SUBMITTED not in topics:
        await in_the_table(ground, "row-1", "submitted before")
    await ground.same("a")


@pytest.mark.long
async def test_a_topic_of_capture_made_again_is_captured_again(ground: Closing) -> None:
    await ground.configure({"a": "postgres", "b": "postgres"})
    await ground.worker.start()
    await ground.same("a", "b")
    recorded = f"select value from crossfade_identities where name = 'capture.{ground.tables['a'].name}.e1'"
    capture = Capture.of((await ground.tables["a"].connection.fetch(recorded))[0][0])
    kafka = settings_of(ground.config, ground.home).kafka
    topics = [topic for topic in captured_topics(kafka, [capture], mariadb=False) if topic.name == capture.topic]
    await delete_and_make_again(ground, topics)
    await ground.is_stopped(a="capture_lost")
    await ground.tables["a"].execute("delete from {t} where id = 'row-4'")
    await ground.recapture("a")
    await ground.is_stopped()
    await ground.same("a", "b")
