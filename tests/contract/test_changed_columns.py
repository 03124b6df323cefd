"""Columns that are used otherwise or changed their type: no other row is deleted, and nothing counts as proved."""

from __future__ import annotations

import pytest

from connectors.legacy_connector import check_legacy, open_legacy
from domain.legacy import LegacyVerdict
from operations.stack.layout import StackAddresses
from schemas.content import Content
from schemas.settings import Connector
from tests.contract.legacy_places import DATABASES, deletion, fresh_place, upsert

pytestmark = pytest.mark.stack


async def test_a_deletion_takes_no_row_whose_text_begins_with_the_number(stack: StackAddresses) -> None:
    async with fresh_place("mariadb", stack) as place:
        await place.execute(
            "CREATE TABLE {t} (id int PRIMARY KEY, title text, body text, crossfade_version bigint INVISIBLE)"
        )
        legacy = await open_legacy("documents", place.collection(metadata=(), tenant=None), place.dsn)
        try:
            await legacy.prepare()
            plain = Content(text={"title": "t", "body": "b"})
            applied = await legacy.table.apply([upsert("17", 1, plain), upsert("18", 2, plain)])
            assert {one.verdict for one in applied} == {LegacyVerdict.APPLIED}
            await place.execute(
                "ALTER TABLE {t} MODIFY id varchar(20) NOT NULL", "INSERT INTO {t} (id) VALUES ('17abc'), ('0017')"
            )
            gone, other = await legacy.table.apply([deletion("17", 3), deletion("18", 4)])
            assert gone.verdict is LegacyVerdict.REFUSED
            assert "other rows have an equal key" in str(gone.reason)
            assert other.verdict is LegacyVerdict.APPLIED
            assert await place.fetch("SELECT id FROM {t} ORDER BY id") == [("0017",), ("17",), ("17abc",)]
        finally:
            await legacy.close()


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
            legacy = await open_legacy("documents", place.collection(**used), place.dsn)
            try:
                return legacy.checksums.columns
            finally:
                await legacy.close()

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
        assert [one.mend for one in found if "log_bin_compress" in one.message] == ["SET GLOBAL log_bin_compress = OFF"]
        assert not [
            one for one in await check_legacy("documents", place.collection(), place.dsn) if "binlog_" in one.message
        ]
