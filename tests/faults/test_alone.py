"""A collection fails alone: the others publish, write and answer, and it recovers by itself with equal stores."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import httpx
import pytest

from connectors.kafka.connect import PLAIN
from stack.layout import StackAddresses
from tests.faults.closing import Closing, closing
from tests.flow.site import eventually

pytestmark = [pytest.mark.stack, pytest.mark.timeout(700)]


@pytest.fixture
async def ground(stack: StackAddresses, stack_home: Path, tmp_path: Path) -> AsyncIterator[Closing]:
    async with closing(stack, stack_home, tmp_path) as made:
        yield made


async def write(ground: Closing, purpose: str, document_id: str) -> None:
    await ground.tables[purpose].execute(
        f"insert into {{t}} (id, title, body, kind, line) values ('{document_id}', 't', 'written meanwhile', 'note', 1)"
    )


async def goes_on(ground: Closing, purpose: str, document_id: str) -> None:
    """Write to a table, and wait until the document is in Qdrant. Another collection is away until this returns."""
    await write(ground, purpose, document_id)
    name = ground.tables[purpose].name

    async def seen() -> bool:
        code, output = await ground.command("inspect", name, document_id, "--json")
        return code == 0 and "written meanwhile" in output

    await eventually(seen, f"{document_id} is in both stores")


async def submit(ground: Closing, purpose: str, document_id: str) -> None:
    document = {"collection": ground.tables[purpose].name, "id": document_id, "text": {"title": "t", "body": "sent"}}
    given = ground.config.with_name("documents.jsonl")
    given.write_text(json.dumps(document) + "\n")
    assert (await ground.command("submit", str(given)))[0] == 0


async def alive(ground: Closing) -> bool:
    async with httpx.AsyncClient(trust_env=False, verify=PLAIN) as client:
        return (await client.get(f"http://127.0.0.1:{ground.worker.port}/livez")).status_code == 200


async def test_a_rotated_password_and_a_locked_table_stop_nobody_else(ground: Closing) -> None:
    role = f"crossfade_{uuid4().hex[:6]}"
    administrator = await asyncpg.connect(ground.addresses.postgres)
    parts = urlsplit(ground.addresses.postgres)
    dsn = urlunsplit(parts._replace(netloc=f"{role}:first@{parts.hostname}:{parts.port}"))
    await administrator.execute(f"create role {role} superuser login password 'first'")
    try:
        await ground.configure({"a": "postgres", "b": "postgres", "m": "mariadb"}, dsns={"b": dsn})
        await ground.worker.start()
        await ground.same("a", "b", "m")
        await administrator.execute(f"alter role {role} password 'second'")
        await administrator.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'")
        await write(ground, "b", "while-locked-out")
        await submit(ground, "b", "sent-while-locked-out")
        await ground.is_stopped(b="unreachable")
        await ground.recapture("m")
        await goes_on(ground, "m", "beside-a-password")
        assert await alive(ground)
        await administrator.execute(f"alter role {role} password 'first'")
        await ground.is_stopped()
        await ground.same("b")

        async with administrator.transaction():
            await administrator.execute(f"lock table {ground.tables['a'].name} in access exclusive mode")
            await submit(ground, "a", "while-locked")
            await goes_on(ground, "m", "beside-a-lock")
            await asyncio.sleep(12)
            assert await alive(ground)
        await ground.is_stopped()
        await ground.same("a", "b", "m")
    finally:
        await administrator.close()
