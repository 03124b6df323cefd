"""A replaced database or table quarantines its collections within seconds, and recapture makes the stores equal."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stack.layout import StackAddresses
from stack.stack import LocalStack
from tests.faults.closing import Closing, closing
from tests.flow.site import eventually
from tests.flow.worker_process import remedy, settings_of

pytestmark = [pytest.mark.stack, pytest.mark.timeout(420)]
CHANGED = (
    "update {t} set body = 'changed behind the back' where id = 'row-1'",
    "delete from {t} where id in ('row-2', 'row-3')",
    "insert into {t} (id, title, body, kind, line) values ('later', 'l', 'inserted later', 'note', 1)",
)
SWAPS = {
    "postgres": (
        "create table {t}_new (like {t} including all)",
        "insert into {t}_new select * from {t} where id <> 'row-4'",
        "begin; alter table {t} rename to {t}_old; alter table {t}_new rename to {t}; commit",
        "drop table {t}_old",
    ),
    "mariadb": (
        "create table {t}_new like {t}",
        "insert into {t}_new select * from {t} where id <> 'row-4'",
        "rename table {t} to {t}_old, {t}_new to {t}",
        "drop table {t}_old",
    ),
}


@pytest.fixture
async def ground(stack: StackAddresses, stack_home: Path, tmp_path: Path) -> AsyncIterator[Closing]:
    async with closing(stack, stack_home, tmp_path) as made:
        yield made


async def restore_yesterday(home: Path, ground: Closing, purpose: str) -> None:
    """Restore PostgreSQL to its state before changes that capture has already read and Qdrant holds."""
    part, data = LocalStack(home).part("postgres"), home / "data" / "postgres"
    backup = data.with_name("postgres.yesterday")
    await part.stop()
    shutil.copytree(data, backup, symlinks=True)
    copy_owner(data, backup)
    await part.start(lambda _: None)
    await ground.reconnect()
    await ground.tables[purpose].execute(*CHANGED)
    await ground.same(purpose)
    seen = await ground.tables[purpose].recorded("source_count") or 0

    async def looked_at() -> bool:
        return (await ground.tables[purpose].recorded("source_count") or 0) > seen + 1

    await eventually(looked_at, "the changed database was looked at")  # the worker checks every few seconds
    await part.stop()
    shutil.rmtree(data)
    backup.rename(data)
    await part.start(lambda _: None)
    await ground.reconnect()


def copy_owner(source: Path, copy: Path) -> None:
    owner = source.stat()
    for each in (copy, *copy.rglob("*")):
        os.chown(each, owner.st_uid, owner.st_gid, follow_symlinks=False)


async def stop_within(bound_s: float, ground: Closing, **reasons: str) -> None:
    try:
        async with asyncio.timeout(bound_s):
            await ground.is_stopped(**reasons)
    except TimeoutError:
        pytest.fail(f"after {bound_s:g} s not {reasons} but {await ground.page()}")


async def test_tables_that_are_swapped_by_rename_stop_alone_and_come_back_equal(ground: Closing) -> None:
    await ground.configure({"a": "postgres", "b": "postgres", "m": "mariadb", "n": "mariadb"})
    await ground.worker.start()
    await ground.same("a", "b", "m", "n")
    for purpose in ("a", "m"):
        table = ground.tables[purpose]
        await table.execute(*SWAPS[table.connector], *CHANGED)
    await stop_within(20, ground, a="table_replaced", m="table_replaced")
    await ground.tables["b"].execute(CHANGED[2])
    await ground.same("b")
    code, _ = await ground.command("recapture", ground.tables["a"].name)
    assert code == 2, "the new table has no REPLICA IDENTITY FULL"
    await remedy(settings_of(ground.config, ground.home))
    await ground.recapture("a", "m")
    await ground.is_stopped()
    for purpose in ("a", "b", "m", "n"):
        await ground.tables[purpose].execute("update {t} set body = 'captured again' where id = 'row-5'")
    await ground.same("a", "b", "m", "n")


async def test_a_restored_backup_and_a_binary_log_that_began_again_stop_their_collections(
    ground: Closing, stack_home: Path
) -> None:
    await ground.configure({"a": "postgres", "m": "mariadb"})
    await ground.worker.start()
    await ground.same("a", "m")
    await restore_yesterday(stack_home, ground, "a")
    await ground.tables["m"].execute("flush binary logs", *CHANGED)
    await ground.same("m")
    await ground.tables["m"].execute("reset master", "update {t} set body = 'after it' where id = 'row-6'")
    await stop_within(30, ground, a="server", m="server")
    await ground.recapture("a", "m")
    await ground.is_stopped()
    for purpose in ("a", "m"):
        await ground.tables[purpose].execute("update {t} set body = 'captured again' where id = 'row-5'")
    await ground.same("a", "m")
