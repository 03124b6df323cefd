"""The contract of `TaskStore`, for every adapter, and what only a database can do to a lock."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from connectors.errors import Refused
from connectors.memory.tasks import MemoryTasks
from connectors.ports import TaskStore
from connectors.sql import tasks as sql_tasks
from connectors.sql.databases import open_legacy
from stack.layout import StackAddresses
from tests.contract.legacy_places import ADAPTERS, DATABASES, DOCUMENTS, Place, fresh_place

pytestmark = pytest.mark.stack
STATE = '{"at": "ключ \\u0000 \U0001f600", "rows": 7}'.encode()


@pytest.fixture(params=ADAPTERS)
async def tasks(request: pytest.FixtureRequest, stack: StackAddresses) -> AsyncIterator[TaskStore]:
    if request.param == "memory":
        yield MemoryTasks()
        return
    async with fresh_place(request.param, stack) as place, AsyncExitStack() as resources:
        yield await opened(place, resources)


@pytest.fixture(params=DATABASES)
async def place(request: pytest.FixtureRequest, stack: StackAddresses) -> AsyncIterator[Place]:
    async with fresh_place(request.param, stack) as place:
        yield place


async def opened(place: Place, resources: AsyncExitStack, name: str = "documents") -> TaskStore:
    if not await tables(place):
        await place.execute(DOCUMENTS[place.connector])
    legacy = await open_legacy(name, place.collection(), place.dsn)
    resources.push_async_callback(legacy.close)
    await legacy.prepare()
    return legacy.tasks


async def tables(place: Place) -> list[tuple[object, ...]]:
    return await place.fetch(f"SELECT 1 FROM information_schema.tables WHERE table_schema = '{place.schema}'")


async def test_parts_are_read_back_as_they_were(tasks: TaskStore) -> None:
    await tasks.save("backfill", {-1: b"{}", 0: STATE, 2_000_000_000: b'{"done": true}'})
    assert await tasks.read("backfill") == {-1: b"{}", 0: STATE, 2_000_000_000: b'{"done": true}'}
    assert await tasks.read("verify") == {}
    assert [await tasks.read("backfill", part) for part in (-1, 1)] == [{-1: b"{}"}, {}]


async def test_a_part_that_is_saved_again_is_replaced_and_the_others_stay(tasks: TaskStore) -> None:
    await tasks.save("backfill", {0: b"1", 1: b"1"})
    await tasks.save("backfill", {1: b"2", 2: b"2"})
    await tasks.save("backfill", {})
    assert await tasks.read("backfill") == {0: b"1", 1: b"2", 2: b"2"}


async def test_many_parts_are_saved_at_once(tasks: TaskStore) -> None:
    parts = {number: f'{{"range": {number}}}'.encode() for number in range(1201)}
    await tasks.save("verify", parts)
    assert await tasks.read("verify") == parts


async def test_a_task_is_forgotten_and_the_others_stay(tasks: TaskStore) -> None:
    await tasks.save("backfill", {0: b"1"})
    await tasks.save("verify", {0: b"2"})
    await tasks.clear("backfill")
    assert (await tasks.read("backfill"), await tasks.read("verify")) == ({}, {0: b"2"})


async def test_a_task_that_is_held_is_refused_to_others_until_it_ends(tasks: TaskStore) -> None:
    async with tasks.hold("backfill"):
        with pytest.raises(Refused, match="backfill"):
            async with tasks.hold("backfill"):
                pytest.fail("held twice")
        async with tasks.hold("verify"):
            pass
    async with tasks.hold("backfill"):
        pass


async def test_a_task_that_failed_is_free_again_and_its_error_unchanged(tasks: TaskStore) -> None:
    for error in (TimeoutError("mine"), OSError("mine"), Refused("mine")):
        with pytest.raises(type(error), match="mine"):
            async with tasks.hold("backfill"):
                raise error
    async with tasks.hold("backfill"):
        pass


async def test_collections_of_one_database_do_not_meet(place: Place) -> None:
    async with AsyncExitStack() as resources:
        first, second = [await opened(place, resources, name) for name in ("first", "second")]
        await first.save("backfill", {0: b"1"})
        assert await second.read("backfill") == {}
        async with first.hold("backfill"), second.hold("backfill"):
            pass


HOLDER = """
import asyncio, sys
from connectors.sql.databases import open_legacy
from schemas.settings import Collection
async def main():
    legacy = await open_legacy("documents", Collection.model_validate_json(sys.argv[1]), sys.argv[2])
    async with legacy.tasks.hold("backfill"):
        print("held", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_what_a_killed_process_held_is_free(place: Place) -> None:
    async with AsyncExitStack() as resources:
        tasks = await opened(place, resources)
        arguments = (sys.executable, "-c", HOLDER, place.collection().model_dump_json(), place.dsn)
        process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"held\n"
        with pytest.raises(Refused):
            async with tasks.hold("backfill"):
                pytest.fail("held by another process")
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await until_free(tasks)


async def until_free(tasks: TaskStore) -> None:
    """Wait at most 20 s until the task can be held: the server needs a moment to notice the end of a connection."""
    async with asyncio.timeout(20):
        while True:
            try:
                async with tasks.hold("backfill"):
                    return
            except Refused:
                await asyncio.sleep(0.1)


async def test_a_lock_whose_connection_broke_is_taken_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_tasks, "_LOOK_S", 0.05)
    monkeypatch.setattr(sql_tasks, "_RETRY_S", 0.05)
    async with AsyncExitStack() as resources:
        tasks = await opened(place, resources)
        async with tasks.hold("backfill"):
            broken = await holder(place)
            await break_lock(place, broken)
            await holder_but(place, None, broken)
        assert await holder(place) is None


async def test_work_ends_where_another_took_its_task_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_tasks, "_LOOK_S", 1.0)
    async with AsyncExitStack() as resources:
        first, second = [await opened(place, resources) for _ in range(2)]
        ended = asyncio.create_task(until_cancelled(first))
        await break_lock(place, await holder_but(place, None))
        async with second.hold("backfill"):
            with pytest.raises(Refused, match="another process"):
                await asyncio.wait_for(ended, 20)


async def until_cancelled(tasks: TaskStore) -> None:
    async with tasks.hold("backfill"):
        await asyncio.Event().wait()


async def holder(place: Place) -> object:
    """Return the server's number of the connection that holds the lock of the task, None if the lock is free."""
    number = sql_tasks.lock_number(place.schema, "documents", "backfill")
    if place.connector == "mariadb":
        return (await place.fetch(f"SELECT IS_USED_LOCK('crossfade:{number:x}')"))[0][0]
    high, low = divmod(number % 2**64, 2**32)
    one = f"locktype = 'advisory' AND classid = {high} AND objid = {low}"
    found = await place.fetch(f"SELECT pid FROM pg_locks WHERE {one}")
    return found[0][0] if found else None


async def holder_but(place: Place, *others: object) -> object:
    """Wait at most 20 s until the holder of the lock is none of the others; return the holder."""
    async with asyncio.timeout(20):
        # Poll: the database server does not report this by itself.
        while (found := await holder(place)) in others:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.02)
    return found


async def break_lock(place: Place, connection: object) -> None:
    """End a connection from the server's side."""
    assert connection is not None
    await place.execute(
        f"SELECT pg_terminate_backend({connection})" if place.connector == "postgres" else f"KILL {connection}"
    )
    await holder_but(place, connection)
