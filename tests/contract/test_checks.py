"""The database part of `config check`: each mistake is found, and its remedy fixes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from connectors.errors import Misconfigured, StoreUnavailable
from connectors.sql.databases import apply_remedies, check_legacy, open_legacy
from domain.legacy import Diagnostic
from schemas.settings import Connector
from stack.layout import StackAddresses
from tests.contract.legacy_places import DATABASES, DOCUMENTS, Place, content, fresh_place, upsert

pytestmark = pytest.mark.stack


@pytest.fixture(params=DATABASES)
async def place(request: pytest.FixtureRequest, stack: StackAddresses) -> AsyncIterator[Place]:
    async with fresh_place(request.param, stack) as made:
        yield made


async def check(place: Place, **changes: Any) -> list[Diagnostic]:
    return await check_legacy("documents", place.collection(**changes), place.dsn)


def messages(findings: list[Diagnostic], level: str | None = None) -> str:
    return "\n".join(finding.message for finding in findings if level in (None, finding.level))


async def test_the_remedies_of_the_findings_leave_none_but_warnings_without_a_statement(place: Place) -> None:
    table = DOCUMENTS[place.connector].replace("crossfade_version bigint INVISIBLE, ", "")
    await place.execute(table.replace("crossfade_version bigint, ", "").replace("PRIMARY KEY", "", 1))
    findings = await check(place)
    reported = messages(findings)
    assert "crossfade_version" in reported
    assert "neither the primary key nor unique" in reported
    assert ("replica identity" in reported) == (place.connector == "postgres")
    applied = await apply_remedies(place.dsn, findings)
    assert len(applied) == len({finding.remedy for finding in findings if finding.remedy})
    left = await check(place)
    assert [finding for finding in left if finding.level == "error" or finding.remedy] == []
    legacy = await open_legacy("documents", place.collection(), place.dsn)
    await legacy.prepare()
    assert (await legacy.table.apply([upsert("a", 1, content())]))[0].reason is None
    assert await legacy.table.check() == left
    await legacy.close()


async def test_the_version_column_does_not_disturb_an_insert_without_columns(place: Place) -> None:
    await place.execute("CREATE TABLE {t} (id bigint PRIMARY KEY, body text)")
    await apply_remedies(place.dsn, await check(place, text=("body",), metadata=(), tenant=None))
    await place.execute("INSERT INTO {t} VALUES (1, 'as before')")
    assert await place.fetch("SELECT id FROM {t}") == [(1,)]


async def test_a_table_that_is_not_there_is_named_with_one_like_it(place: Place) -> None:
    await place.execute(DOCUMENTS[place.connector])
    findings = await check(place, table=f"{place.schema}.dokuments")
    assert "did you mean documents?" in messages(findings, "error")


async def test_a_column_that_is_not_there_is_named_with_ones_like_it(place: Place) -> None:
    await place.execute(DOCUMENTS[place.connector])
    reported = messages(await check(place, text=("titel", "body"), metadata=("yaer",), tenant="owner"), "error")
    assert "text column titel is not in the table; did you mean title?" in reported
    assert "metadata column yaer is not in the table; did you mean year?" in reported
    assert "tenant column owner is not in the table" in reported


async def test_columns_of_the_wrong_type_are_reported_by_their_use(place: Place) -> None:
    raw = "bytea" if place.connector == "postgres" else "blob"
    await place.execute(
        f"CREATE TABLE {{t}} (id double precision PRIMARY KEY, number bigint, raw {raw}, crossfade_version bigint)"
    )
    reported = messages(
        await check(
            place,
            text=("number",),
            metadata=("raw",),
            tenant=None,
            embedding={"column": "crossfade_version", "format": "json"},
        ),
        "error",
    )
    assert "key column id" in reported
    assert "text column number is of type bigint" in reported
    assert "metadata column raw" in reported
    assert "format json needs" in reported


@pytest.mark.parametrize("definition", ["crossfade_version integer", "crossfade_version bigint NOT NULL DEFAULT 0"])
async def test_a_version_column_of_another_kind_is_mended(place: Place, definition: str) -> None:
    await place.execute(f"CREATE TABLE {{t}} (id bigint PRIMARY KEY, body text, {definition})")
    changes: dict[str, Any] = {"text": ("body",), "metadata": (), "tenant": None}
    findings = [f for f in await check(place, **changes) if "crossfade_version" in f.message and f.level == "error"]
    assert len(findings) == 1
    await apply_remedies(place.dsn, findings)
    assert "column crossfade_version" not in messages(await check(place, **changes), "error")


async def test_columns_that_round_or_that_new_rows_would_miss_are_warned_of(place: Place) -> None:
    await place.execute(
        "CREATE TABLE {t} (id bigint PRIMARY KEY, body text, price numeric(8,2), at timestamp(0) NULL, "
        "needed integer NOT NULL, crossfade_version bigint)"
    )
    reported = messages(await check(place, text=("body",), metadata=("price", "at"), tenant=None), "warning")
    assert "column price rounds" in reported
    assert "column at rounds" in reported
    assert "column needed is NOT NULL without a default" in reported


async def test_the_local_stacks_server_has_nothing_to_fix(place: Place) -> None:
    await place.execute(DOCUMENTS[place.connector])
    subjects = {"PostgreSQL", "MariaDB"}
    assert [finding for finding in await check(place) if finding.subject in subjects] == []


async def test_a_role_that_may_not_capture_is_told_with_the_grant(place: Place) -> None:
    user = f"poor_{place.schema[-8:]}"
    await place.execute(DOCUMENTS[place.connector])
    if place.connector == "postgres":
        await place.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'p'", f"GRANT USAGE ON SCHEMA {place.schema} TO {user}")
    else:
        await place.execute(f"CREATE USER {user} IDENTIFIED BY 'p'")
    try:
        host = place.dsn.rpartition("@")[2].partition("/")[0]
        database = place.dsn.rpartition("/")[2] if place.connector == "postgres" else ""
        scheme = place.dsn.partition(":")[0]
        findings = await check_legacy("documents", place.collection(), f"{scheme}://{user}:p@{host}/{database}")
        remedies = " ".join(str(finding.remedy) for finding in findings)
        assert "REPLICATION" in remedies
        if place.connector == "postgres":
            assert "may not read and write the table" in messages(findings, "error")
            assert "may not create crossfade_ledger" in messages(findings, "error")
    finally:
        if place.connector == "postgres":
            await place.execute(f"DROP OWNED BY {user}")
        await place.execute(f"DROP {'ROLE' if place.connector == 'postgres' else 'USER'} {user}")


async def test_an_unknown_text_search_configuration_is_an_error(stack: StackAddresses) -> None:
    async with fresh_place("postgres", stack) as place:
        await place.execute(DOCUMENTS["postgres"])
        reported = messages(await check(place, text_search_config="englisch"), "error")
        assert "did you mean english?" in reported


async def test_a_key_whose_collation_joins_ids_is_reported(stack: StackAddresses) -> None:
    async with fresh_place("mariadb", stack) as place:
        await place.execute(DOCUMENTS["mariadb"].replace("utf8mb4_nopad_bin", "utf8mb4_general_ci"))
        assert "differs only in case" in messages(await check(place), "warning")
    async with fresh_place("postgres", stack) as place:
        await place.execute("CREATE TABLE {t} (id character(9) PRIMARY KEY, body text, crossfade_version bigint)")
        findings = await check(place, text=("body",), metadata=(), tenant=None)
        assert "would be one row" in messages(findings, "error")


async def test_a_server_that_a_crash_costs_what_was_captured_is_warned_of(stack: StackAddresses) -> None:
    variables = ("sync_binlog", "innodb_flush_log_at_trx_commit")
    async with fresh_place("mariadb", stack) as place:
        await place.execute(DOCUMENTS["mariadb"])
        try:
            await place.execute(*(f"SET GLOBAL {variable} = 0" for variable in variables))
            findings = [one for one in await check(place) if "a crash may lose" in one.message]
            assert [one.message.partition(" ")[0] for one in findings] == [*reversed(variables)]
            await apply_remedies(place.dsn, findings)
            assert "a crash may lose" not in messages(await check(place))
        finally:
            await place.execute(*(f"SET GLOBAL {variable} = 1" for variable in variables))


async def test_a_key_besides_the_primary_key_is_as_good_as_that(place: Place) -> None:
    await place.execute(
        "CREATE TABLE {t} (id bigint PRIMARY KEY, number bigint NOT NULL UNIQUE, body text, crossfade_version bigint)"
    )
    changes: dict[str, Any] = {"text": ("body",), "metadata": (), "tenant": None}
    assert "key" not in messages(await check(place, key=("number",), **changes))


async def test_a_generated_column_cannot_be_metadata(place: Place) -> None:
    await place.execute(
        "CREATE TABLE {t} (id bigint PRIMARY KEY, body text, twice bigint GENERATED ALWAYS AS (id * 2) STORED, "
        "crossfade_version bigint)"
    )
    assert "generated" in messages(await check(place, text=("body",), metadata=("twice",), tenant=None), "error")


@pytest.mark.parametrize("connector", DATABASES)
async def test_a_server_that_does_not_answer_is_unavailable_and_no_address_misconfigured(connector: Connector) -> None:
    place = Place(connector, f"{'postgresql' if connector == 'postgres' else 'mysql'}://u:p@127.0.0.1:9/d", "s")
    with pytest.raises(StoreUnavailable):
        await check(place)
    with pytest.raises(Misconfigured):
        await check_legacy("documents", place.collection(), "nonsense")
