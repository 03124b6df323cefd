"""No damage is final: whatever ledger, checkpoints and points hold, two repairs during writes make the stores equal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from connectors.kafka.offsets import end_offsets
from domain.points import DocumentPoints, chunks_of
from tests.contract.legacy_places import DATABASES, Connection
from tests.flow.site import Site, Store, eventually
from topics.catalogue import LOG

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
COLUMNS = "id, title, body, kind, line, crossfade_version"
HIGH = 2**52 + 12345
# The value that each column of the ledger is set to, each for a different document.
DAMAGES = {
    "version": str(HIGH),
    "written": f"{HIGH}, pending = true",
    "pending": "true",
    "removed": "true",
    "refresh": "true",
    "legacy_position": "'[9, 9, 9]'",
    "legacy_position = '[', version": "3",
    "producer_positions": "'[[0, 1, 900000000], [1, 1, 900000000], [2, 1, 900000000], [3, 1, 900000000]]'",
    "producer_positions = '{\"a\": 1}', written": "5",
    "legacy_version": str(HIGH),
    "refused_version": str(HIGH),
    "vector_version": str(HIGH),
    "content_hash": "'other'",
    "chunk_count": "17",
    "embedding_model": "'other'",
    "document_id": "concat('other-', document_id)",
}
TASKS = ("state = 'broken'", "state = '{}'", "part = part + 7", "task = 'other'", "collection = 'other'")


@pytest.fixture(params=DATABASES)
async def store(site: Site, request: pytest.FixtureRequest) -> Store:
    store = site.store("repaired", request.param)
    await store.holds_the_same(await store.count())
    return store


async def test_a_row_that_comes_back_from_an_archive_with_its_version_comes_back(store: Store) -> None:
    await store.applied("kept", text={"title": "Kept", "body": "It will be archived."}, metadata={"line": 1})
    version = await store.value("select crossfade_version from {t} where id = 'kept'")
    assert version is not None
    await store.execute(f"create table {{t}}_archive as select {COLUMNS} from {{t}} where id = 'kept'")
    for copy in ("kept", "copy"):
        # First unchanged, then as another document with a version that is not its own.
        await store.execute("delete from {t} where id = 'kept'")
        await eventually(lambda: _is(store, "kept", None), "the archived document is gone")
        await store.execute(f"update {{t}}_archive set id = '{copy}'")
        await store.execute(f"insert into {{t}} ({COLUMNS}) select {COLUMNS} from {{t}}_archive")
        await eventually(lambda copy=copy: _is(store, copy, "It will be archived."), f"{copy} is there")  # type: ignore[misc]
    await store.holds_the_same(await store.count())


async def test_a_write_that_a_trigger_does_something_with_hides_no_later_one(store: Store) -> None:
    strip, drop = _trigger(store)
    for statement in strip:
        await store.execute(statement)
    cause = store.submit("tricky", text={"title": "Tricky", "body": "A trigger does something with it."})
    reported = await store.written(cause, "legacy")
    assert reported.data["outcome"] in {"applied", "dead_lettered"}
    for statement in drop:
        await store.execute(statement)
    await store.execute("delete from {t} where id = 'tricky'")
    await store.execute("insert into {t} (id, body) values ('tricky', 'The application wrote it later.')")
    await repaired(store)
    assert await _is(store, "tricky", "The application wrote it later.")


async def test_a_lost_echo_and_a_deletion_after_it_are_repaired(store: Store) -> None:
    await store.applied("lost", text={"title": "Lost", "body": "Its echo is lost."})
    async with store.uncaptured():
        await store.execute("delete from {t} where id = 'lost'")
        # As if the replication slot had been lost before the echo, and created again after the deletion.
        await store.execute("update crossfade_ledger set pending = true where document_id = 'lost'")
    assert (await store.points("lost")) != []
    await repaired(store)
    assert await store.points("lost") == []


async def test_two_repairs_lead_from_any_damage_to_equal_stores_during_writes(store: Store) -> None:
    await store.command("verify", store.name)  # so that there are checkpoints to damage
    ids = [f"row-{n}" for n in range(10, 10 + len(DAMAGES))]
    await submitted(store, ids, "before")
    async with writes(store):
        for document_id, (column, value) in zip(ids, DAMAGES.items(), strict=True):
            await store.execute(
                f"update crossfade_ledger set {column} = {value} "
                f"where collection = '{store.name}' and document_id = '{document_id}'"
            )
        await store.execute(f"delete from crossfade_ledger where collection = '{store.name}' and document_id = 'row-5'")
        await _overwrite_points(store, "row-6")
        for document_id in (*ids, "row-5", "row-6"):
            await store.execute(f"update {{t}} set body = 'changed by SQL' where id = '{document_id}'")
        await store.execute("delete from {t} where id = 'row-7'")
        for change in TASKS:
            await store.execute(f"update crossfade_tasks set {change} where collection = '{store.name}'")
            if change == TASKS[0]:
                await store.command("verify", store.name, "--repair", "--sample", "0")
        await store.command("verify", store.name, "--repair", "--full", "--sample", "0")
    code, output = await store.command("verify", store.name, "--full", "--sample", "0", "--recheck-timeout", "40")
    assert code == 0, output
    assert await store.points("row-7") == []
    # The ledger no longer does harm: later changes arrive without a repair.
    for document_id in ids:
        await store.execute(f"update {{t}} set body = 'changed again' where id = '{document_id}'")
    await store.holds_the_same(await store.count())
    await submitted(store, ids, "again")
    await store.holds_the_same(await store.count())


async def submitted(store: Store, ids: list[str], body: str) -> None:
    """Submit documents together, and wait until the table has all of them."""
    for document_id in ids:
        store.submit(document_id, text={"title": document_id, "body": body})
    marks = ", ".join(f"'{one}'" for one in ids)

    async def all_there() -> bool:
        there = await store.value(f"select count(*) from {{t}} where body = '{body}' and id in ({marks})")
        return int(there) == len(ids)

    await eventually(all_there, f"the table has what was submitted {body}")


async def repaired(store: Store) -> None:
    """Repair twice, and check that both stores are equal."""
    for _ in range(2):
        await store.command("verify", store.name, "--repair", "--sample", "0")
    code, output = await store.command("verify", store.name, "--full", "--sample", "0", "--recheck-timeout", "40")
    assert code == 0, output


@asynccontextmanager
async def writes(store: Store) -> AsyncIterator[None]:
    """Change rows by SQL and by events until the end of the block."""

    connection = await Connection.open(store.connector, store.ports.settings.dsn or "")

    async def write() -> None:
        for turn in range(100_000):
            await connection.execute(f"update {store.name} set body = 'turn {turn}' where id = 'row-{turn % 5}'")
            store.submit(f"live-{turn % 3}", text={"title": "live", "body": f"turn {turn}"})
            await asyncio.sleep(0.2)

    writing = asyncio.create_task(write())
    try:
        yield
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        await connection.close()


async def _is(store: Store, document_id: str, body: str | None) -> bool:
    points = await store.points(document_id)
    if body is None:
        return points == []
    return bool(points) and body in (points[0].text or "")


async def _overwrite_points(store: Store, document_id: str) -> None:
    """Write a point with a version that the log has not reached, so that every later write would be too old."""
    ports = store.ports
    ends = await end_offsets(store.site.opened.settings.kafka.bootstrap or "", [LOG])
    assert max(ends[LOG].values()) < HIGH & (2**40 - 1)
    (vector,) = await ports.embedder.embed_documents(["damaged"])
    chunks = chunks_of(["damaged"], [vector])
    model = ports.embedder.model_key
    await ports.vectors.write(store.name, [DocumentPoints(document_id, HIGH, "default", "x", model, {}, chunks, ())])


def _trigger(store: Store) -> tuple[list[str], list[str]]:
    """Return the statements that create and drop a trigger.

    PostgreSQL's swallows our upsert; MariaDB's removes the version from it.
    """
    if store.connector == "mariadb":
        strip = "set new.crossfade_version = if(new.id = 'tricky', null, new.crossfade_version)"
        return [f"create trigger {{t}}_strip before insert on {{t}} for each row {strip}"], ["drop trigger {t}_strip"]
    body = "begin if new.id = 'tricky' and new.crossfade_version is not null then return null; end if; return new; end"
    return [
        f"create function {{t}}_swallow() returns trigger language plpgsql as $$ {body} $$",
        "create trigger swallow before insert or update on {t} for each row execute function {t}_swallow()",
    ], ["drop trigger swallow on {t}", "drop function {t}_swallow()"]
