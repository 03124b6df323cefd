"""If capture loses its replication position or cannot continue, its collection is quarantined.

The other collections go on, and recapture is the remedy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from stack.layout import StackAddresses
from stack.stack import LocalStack
from tests.faults.closing import Closing, Table, closing
from tests.flow.site import eventually

pytestmark = [pytest.mark.stack, pytest.mark.timeout(420)]


@pytest.fixture
async def ground(stack: StackAddresses, stack_home: Path, tmp_path: Path) -> AsyncIterator[Closing]:
    async with closing(stack, stack_home, tmp_path) as made:
        yield made


async def drop_the_slot(ground: Closing) -> None:
    """Drop the slot of the first connector while its reader is active."""
    slot = (await ground.capture("a")).slot
    connection = await asyncpg.connect(ground.addresses.postgres)
    reader = "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active"
    try:
        while True:
            try:
                await connection.execute(reader, slot)
                await connection.execute("select pg_drop_replication_slot($1)", slot)
                return
            except asyncpg.ObjectInUseError:
                await asyncio.sleep(0.01)
    finally:
        await connection.close()


async def change_unseen(ground: Closing, *purposes: str) -> None:
    """Change, delete and insert rows while nothing captures them."""
    for purpose in purposes:
        await ground.tables[purpose].execute(
            "update {t} set body = 'changed unseen' where id = 'row-1'",
            "delete from {t} where id in ('row-2', 'row-3')",
            "insert into {t} (id, title, body, kind, line) values ('unseen', 'u', 'inserted unseen', 'note', 1)",
        )


async def a_direct_write_arrives(ground: Closing, purpose: str, document_id: str) -> None:
    await ground.tables[purpose].execute(
        f"insert into {{t}} (id, title, body, kind, line) values ('{document_id}', 't', 'written directly', 'note', 1)"
    )
    await ground.same(purpose)


async def test_a_dropped_slot_stops_its_collections_for_good_and_recapture_brings_them_back(ground: Closing) -> None:
    await ground.configure({"a": "postgres", "b": "postgres", "m": "mariadb"})
    await ground.worker.start()
    await ground.same("a", "b", "m")
    assert await ground.stopped() == {}

    await drop_the_slot(ground)
    await change_unseen(ground, "a", "b")
    await ground.is_stopped(a="capture_lost", b="capture_lost")
    status, page = await ground.page()
    assert status == 503
    assert {each["mend"] for each in page["stopped"]} == {
        f"crossfade recapture {ground.tables[purpose].name}" for purpose in ("a", "b")
    }
    assert (await ground.page("livez"))[0] == 200
    await a_direct_write_arrives(ground, "m", "goes-on")

    await ground.worker.stop()
    await ground.worker.start()
    await ground.is_stopped(a="capture_lost", b="capture_lost")
    assert (await ground.command("verify", ground.tables["a"].name))[0] == 3

    output = await ground.recapture("a", "b")
    assert output.count("in both stores, equal") == 2
    await ground.is_stopped()
    await ground.same("a", "b")
    assert await ground.tables["a"].recorded("source_epoch") == 2
    await a_direct_write_arrives(ground, "a", "captured-again")


async def test_a_purged_binary_log_stops_its_collection_for_good_and_recapture_brings_it_back(
    ground: Closing, stack_home: Path
) -> None:
    await ground.configure({"a": "postgres", "m": "mariadb"})
    await ground.worker.start()
    await ground.same("a", "m")
    connect = LocalStack(stack_home).part("connect")
    await connect.stop()
    try:
        await change_unseen(ground, "m")
        await ground.tables["m"].execute("flush binary logs", "insert into {t} (id, title) values ('later', 'l')")
        await ground.tables["m"].execute("flush binary logs")
        logs = await ground.tables["m"].connection.fetch("show binary logs")
        await ground.tables["m"].execute(f"purge binary logs to '{logs[-1][0]}'")
    finally:
        await connect.start(lambda _: None)
    await ground.is_stopped(m="capture_lost")
    await a_direct_write_arrives(ground, "a", "goes-on")

    await ground.recapture("m")
    await ground.is_stopped()
    await ground.same("m")
    await a_direct_write_arrives(ground, "m", "captured-again")


async def lose_the_place(ground: Closing, purpose: str) -> None:
    """Make Kafka Connect forget how far a connector has read, as the loss of its offsets topic does."""
    url = f"{ground.addresses.connect}/connectors/{(await ground.capture(purpose)).connector}"
    async with httpx.AsyncClient(trust_env=False, timeout=30.0) as connect:
        (await connect.put(f"{url}/stop")).raise_for_status()
        await change_unseen(ground, purpose)

        async def forgotten() -> bool:
            return (await connect.delete(f"{url}/offsets")).is_success

        await eventually(forgotten, "the offsets are deleted")


async def test_a_connector_that_lost_its_place_stops_its_collections_and_recapture_brings_them_back(
    ground: Closing,
) -> None:
    await ground.configure({"a": "postgres", "b": "mariadb"})
    await ground.worker.start()
    await ground.same("a", "b")
    for purpose in ("a", "b"):
        await ground.tables[purpose].execute("update {t} set body = 'captured' where id = 'row-9'")
    await ground.same("a", "b")
    for purpose in ("a", "b"):

        async def noted(table: Table = ground.tables[purpose]) -> bool:
            statement = f"select value from crossfade_identities where name = 'source.{table.name}'"
            return ['"begun":true' in row[0] for row in await table.connection.fetch(statement)] == [True]

        await eventually(noted, f"the connector of {purpose} has committed its place, and the worker has seen it")
        await lose_the_place(ground, purpose)
    await ground.is_stopped(a="capture_lost", b="capture_lost")
    await ground.recapture("a", "b")
    await ground.is_stopped()
    await ground.same("a", "b")


async def test_a_renamed_column_and_a_truncation_stop_their_collections_and_not_their_neighbour(
    ground: Closing,
) -> None:
    await ground.configure({"renamed": "postgres", "emptied": "postgres", "b": "postgres"})
    await ground.worker.start()
    await ground.same("renamed", "emptied", "b")
    await ground.tables["renamed"].execute(
        "alter table {t} rename column title to heading", "update {t} set body = 'changed' where id = 'row-1'"
    )
    await ground.tables["emptied"].execute("truncate {t}")
    await ground.is_stopped(renamed="unreadable", emptied="unreadable")
    await a_direct_write_arrives(ground, "b", "goes-on")

    await ground.tables["renamed"].execute("alter table {t} rename column heading to title")
    await ground.recapture("renamed")
    await ground.is_stopped(emptied="unreadable")
    await ground.recapture("emptied")
    await ground.is_stopped()
    await ground.same("renamed", "emptied")
    for purpose, epoch in {"renamed": 2, "emptied": 3, "b": 1}.items():
        assert await ground.tables[purpose].recorded("source_epoch") == epoch
        await a_direct_write_arrives(ground, purpose, "captured-again")


async def test_a_table_that_is_configured_later_gets_a_snapshot_of_its_own(ground: Closing) -> None:
    await ground.configure({"a": "postgres"})
    await ground.worker.start()
    await ground.same("a")
    await ground.worker.stop()
    await ground.configure({"a": "postgres", "later": "postgres"})
    await ground.worker.start()
    await ground.same("a", "later")
    assert await ground.tables["later"].recorded("source_epoch") == 2
    for purpose in ("a", "later"):
        await a_direct_write_arrives(ground, purpose, "captured")


async def test_points_of_another_model_stop_their_collection_and_qdrant_alone(ground: Closing) -> None:
    await ground.configure({"a": "postgres", "b": "postgres"})
    await ground.worker.start()
    await ground.same("a", "b")
    await ground.worker.stop()
    # As if another model were configured: the recorded model does not match it.
    name = ground.tables["a"].name
    recorded = await ground.tables["a"].recorded("model")
    await ground.tables["a"].execute(f"update crossfade_meta set value = 1 where name = 'model.{name}'")
    await ground.worker.start()
    await ground.is_stopped(a="model")
    await change_unseen(ground, "a")
    await a_direct_write_arrives(ground, "b", "goes-on")
    code, output = await ground.command("recapture", name)
    assert (code, output) == (1, "")
    await ground.is_stopped(a="model")

    await ground.tables["a"].execute(f"update crossfade_meta set value = {recorded} where name = 'model.{name}'")
    await ground.recapture("a")
    await ground.is_stopped()
    await ground.same("a")


async def test_another_number_of_partitions_of_the_log_ends_the_worker_for_good(ground: Closing) -> None:
    await ground.configure({"a": "postgres"})
    await ground.worker.start()
    await ground.same("a")
    found = await ground.tables["a"].connection.fetch(
        "select value from crossfade_meta where name = 'documents.log.partitions'"
    )
    change = "update crossfade_meta set value = {} where name = 'documents.log.partitions'"
    await ground.tables["a"].execute(change.format(97))
    try:
        assert await ground.worker.ended() == 2
    finally:
        await ground.tables["a"].execute(change.format(found[0][0]))
