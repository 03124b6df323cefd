"""A column's use or type changes: no other row is deleted, and nothing that was proved before counts as proved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from connectors.errors import StoreUnavailable
from connectors.sql.databases import LegacyConnector, check_legacy, open_legacy
from domain.legacy import LegacyVerdict
from schemas.content import Content
from schemas.settings import Collection, Connector
from stack.layout import StackAddresses
from tests.contract.legacy_places import DATABASES, Place, deletion, fresh_place, upsert

pytestmark = pytest.mark.stack


@asynccontextmanager
async def opened(collection: Collection, place: Place) -> AsyncIterator[LegacyConnector]:
    legacy = await open_legacy("documents", collection, place.dsn)
    try:
        yield legacy
    finally:
        await legacy.close()


async def test_a_changed_key_waits_until_its_table_is_opened_again_and_a_deletion_takes_no_other_row(
    stack: StackAddresses,
) -> None:
    async with fresh_place("mariadb", stack) as place:
        await place.execute(
            "CREATE TABLE {t} (id int PRIMARY KEY, title text, body text, crossfade_version bigint INVISIBLE)"
        )
        collection = place.collection(metadata=(), tenant=None)
        plain = Content(text={"title": "t", "body": "b"})
        async with opened(collection, place) as legacy:
            await legacy.prepare()
            applied = await legacy.table.apply([upsert("17", 1, plain), upsert("18", 2, plain)])
            assert {one.verdict for one in applied} == {LegacyVerdict.APPLIED}
            await place.execute(
                "ALTER TABLE {t} MODIFY id varchar(20) NOT NULL", "INSERT INTO {t} (id) VALUES ('17abc'), ('0017')"
            )
            with pytest.raises(StoreUnavailable, match=r"column id is another one \(int\(11\), now varchar\(20\) "):
                await legacy.table.apply([deletion("17", 3)])
            for waits in (legacy.table.apply([upsert("word", 4, plain)]), legacy.table.rows(["17abc"])):
                with pytest.raises(StoreUnavailable, match="column id"):
                    await waits
            assert list(await legacy.table.rows(["17"])) == ["17"]
        async with opened(collection, place) as legacy:
            gone, new = await legacy.table.apply([deletion("17", 3), upsert("word", 4, plain)])
            assert (gone.verdict, new.verdict) == (LegacyVerdict.APPLIED, LegacyVerdict.APPLIED)
            assert await place.fetch("SELECT id FROM {t} ORDER BY id") == [("0017",), ("17abc",), ("18",), ("word",)]


ALTERED = {
    "postgres": (
        'ALTER TABLE {t} ALTER id TYPE text COLLATE "C"',
        "ALTER TABLE {t} ALTER year TYPE bigint",
        "ALTER TYPE {schema}.form ADD VALUE 'new'",
        "ALTER TABLE {t} RENAME body TO other",
    ),
    "mariadb": (
        "ALTER TABLE {t} MODIFY id varchar(40) COLLATE utf8mb4_bin",
        "ALTER TABLE {t} MODIFY year bigint",
        "ALTER TABLE {t} MODIFY form enum('raw', 'old', 'new')",
        "ALTER TABLE {t} CHANGE body other text",
    ),
}


@pytest.mark.parametrize("connector", DATABASES)
async def test_what_changes_in_the_columns_is_seen_and_what_crossfade_does_not_use_is_not(
    connector: Connector, stack: StackAddresses
) -> None:
    async with fresh_place(connector, stack) as place:
        enum, key = "enum('raw', 'old')", "varchar(40) COLLATE utf8mb4_nopad_bin"
        if connector == "postgres":
            enum, key = f"{place.schema}.form", "varchar(40)"
            await place.execute(f"CREATE TYPE {enum} AS ENUM ('raw', 'old')")
        await place.execute(
            f"CREATE TABLE {{t}} (id {key} PRIMARY KEY, title text, body text, year int, form {enum}, own int,"
            " crossfade_version bigint)"
        )
        for statement in ALTERED[connector]:
            async with opened(place.collection(metadata=("year", "form"), tenant=None), place) as legacy:
                await place.execute("ALTER TABLE {t} DROP own", "ALTER TABLE {t} ADD own text")
                assert await legacy.table.altered() is None
                await place.execute(statement.replace("{schema}", place.schema))
                assert (await legacy.table.altered() or "").startswith("column ")


@pytest.mark.parametrize("connector", DATABASES)
async def test_a_proof_is_of_what_its_columns_were_used_as(connector: Connector, stack: StackAddresses) -> None:
    uses = (
        {"metadata": ("author", "team"), "tenant": None},
        {"metadata": ("author",), "tenant": "team"},
        {"metadata": ("author", "team"), "tenant": None, "text": ("title",)},
        {"metadata": ("author", "body", "team"), "tenant": None, "text": ("title",)},
    )
    async with fresh_place(connector, stack) as place:
        kind = "text" if connector == "postgres" else "varchar(40)"
        await place.execute(
            f"CREATE TABLE {{t}} (id int PRIMARY KEY, title text, body text, author {kind}, team {kind},"
            " crossfade_version bigint)"
        )

        async def name(**used: object) -> str:
            async with opened(place.collection(**used), place) as legacy:
                return legacy.checksums.columns

        names = [await name(**used) for used in uses]
        assert len(set(names)) == len(uses)
        assert await name(**uses[0]) == names[0]
        change = "ALTER COLUMN author TYPE varchar(99)" if connector == "postgres" else "MODIFY author varchar(99)"
        await place.execute(f"ALTER TABLE {{t}} {change}")
        assert await name(**uses[0]) != names[0]


async def test_a_label_that_is_called_compressed_is_no_compressed_column(stack: StackAddresses) -> None:
    async with fresh_place("mariadb", stack) as place:
        await place.execute(
            "CREATE TABLE {t} (id int PRIMARY KEY, title text, body text, form enum('RAW', 'COMPRESSED'),"
            " crossfade_version bigint INVISIBLE)"
        )
        found = await check_legacy("documents", place.collection(metadata=(), tenant=None), place.dsn)
        assert not [one for one in found if "COMPRESSED" in one.message]


async def test_a_binary_log_that_is_compressed_is_an_error(stack: StackAddresses) -> None:
    async with fresh_place("mariadb", stack) as place:
        await place.execute("SET GLOBAL log_bin_compress = ON")
        try:
            found = await check_legacy("documents", place.collection(), place.dsn)
        finally:
            await place.execute("SET GLOBAL log_bin_compress = OFF")
        assert [one.remedy for one in found if "log_bin_compress" in one.message] == [
            "SET GLOBAL log_bin_compress = OFF"
        ]
        assert not [
            one for one in await check_legacy("documents", place.collection(), place.dsn) if "binlog_" in one.message
        ]
