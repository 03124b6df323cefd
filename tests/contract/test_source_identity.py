"""On the real databases, a database and a table are identified by more than their names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from connectors.sql.databases import source_facts
from connectors.sql.postgres.source import failover_slots
from domain.quarantine import Reason
from domain.sources import Outside, SourceIdentity, source_change
from stack.layout import StackAddresses
from tests.contract.legacy_places import DATABASES, DOCUMENTS, Place, fresh_place

pytestmark = pytest.mark.stack
SWAPS = {
    "postgres": ("ALTER TABLE {t} RENAME TO documents_old", "ALTER TABLE {s}.documents_new RENAME TO documents"),
    "mariadb": ("RENAME TABLE {t} TO {s}.documents_old, {s}.documents_new TO {t}",),
}
REBUILDS = {
    "postgres": ("VACUUM FULL {t}", "ALTER TABLE {t} ALTER COLUMN year TYPE bigint", "TRUNCATE {t}"),
    "mariadb": ("OPTIMIZE TABLE {t}", "ALTER TABLE {t} MODIFY year bigint", "ALTER TABLE {t} ADD COLUMN extra int"),
}


@pytest.fixture(params=DATABASES)
async def place(request: pytest.FixtureRequest, stack: StackAddresses) -> AsyncIterator[Place]:
    async with fresh_place(request.param, stack) as made:
        await made.execute(DOCUMENTS[made.connector])
        yield made


class Watched:
    """The recorded identity of the place's table, and the database role that checks it."""

    def __init__(self, place: Place, dsn: str | None = None) -> None:
        self.place, self.dsn = place, dsn or place.dsn
        self.recorded: SourceIdentity | None = None

    async def change(self) -> tuple[Reason, str] | None:
        """Return what changed since the last check. The first check records the identity."""
        named = (self.place.connector, self.dsn, f"{self.place.schema}.documents", f"{self.place.schema}_p")
        facts = await source_facts(*named, self.recorded)
        found = source_change(self.recorded, facts, Outside()) if self.recorded else None
        if found is None:
            self.recorded = SourceIdentity("c", facts.server, facts.table or "", facts.end, facts.gtids, facts.place)
        return None if found is None else (found.reason, found.detail)


async def run(place: Place, *statements: str) -> None:
    await place.execute(*(each.replace("{s}", place.schema) for each in statements))


async def test_a_table_that_is_altered_or_rebuilt_is_the_same_table(place: Place) -> None:
    watched = Watched(place)
    assert await watched.change() is None
    for statement in REBUILDS[place.connector]:
        await run(place, "INSERT INTO {t} (id, body) VALUES ('x', 'y')", statement, "DELETE FROM {t}")
        assert await watched.change() is None, statement


async def test_a_swap_by_rename_is_another_table(place: Place) -> None:
    await run(place, DOCUMENTS[place.connector].replace("{t}", f"{place.schema}.documents_new"))
    watched = Watched(place)
    assert await watched.change() is None
    await run(place, *SWAPS[place.connector])
    found = await watched.change()
    assert found is not None
    assert found[0] is Reason.TABLE_REPLACED


async def test_a_table_that_is_gone_and_one_that_was_made_again_are_found(place: Place) -> None:
    watched = Watched(place)
    assert await watched.change() is None
    await place.execute("DROP TABLE {t}")
    assert await watched.change() == (Reason.TABLE_REPLACED, "there is no table of its name")
    await place.execute(DOCUMENTS[place.connector])
    found = await watched.change()
    assert found is not None
    assert found[0] is Reason.TABLE_REPLACED
    assert "id is" in found[1]


async def test_a_table_that_the_publication_does_not_contain_is_found(place: Place) -> None:
    if place.connector != "postgres":
        pytest.skip("MariaDB has no publications")
    publication = f"{place.schema}_p"
    await run(place, DOCUMENTS["postgres"].replace("{t}", f"{place.schema}.another"))
    await place.execute(f"CREATE PUBLICATION {publication} FOR TABLE {{t}}")
    try:
        watched = Watched(place)
        assert await watched.change() is None
        await place.execute(f"ALTER PUBLICATION {publication} SET TABLE {place.schema}.another")
        assert await watched.change() == (Reason.TABLE_REPLACED, "capture's publication does not contain the table")
        await place.execute(f"ALTER PUBLICATION {publication} SET TABLES IN SCHEMA {place.schema}")
        assert await watched.change() is None
    finally:
        await place.execute(f"DROP PUBLICATION {publication}")


async def test_mariadb_tables_are_told_apart_by_a_role_that_may_only_what_debezium_needs(stack: StackAddresses) -> None:
    async with fresh_place("mariadb", stack) as place:
        await place.execute(DOCUMENTS["mariadb"])
        user = f"u{uuid4().hex[:8]}"
        parts = urlsplit(place.dsn)
        await place.execute(
            f"CREATE USER {user}@'127.0.0.1' IDENTIFIED BY 'secret'",
            f"GRANT SELECT ON {place.schema}.* TO {user}@'127.0.0.1'",
            f"GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO {user}@'127.0.0.1'",
        )
        try:
            watched = Watched(place, f"mysql://{user}:secret@{parts.hostname}:{parts.port}/{place.schema}")
            assert await watched.change() is None
            assert watched.recorded is not None
            assert watched.recorded.table.startswith("created ")
            await place.execute("ALTER TABLE {t} ADD COLUMN extra int", "ALTER TABLE {t} FORCE")
            assert await watched.change() is None
            await asyncio.sleep(1.1)  # without PROCESS only a time in seconds shows the change
            await run(place, DOCUMENTS["mariadb"].replace("{t}", f"{place.schema}.documents_new"))
            await run(place, *SWAPS["mariadb"])
            found = await watched.change()
            assert found is not None
            assert found[0] is Reason.TABLE_REPLACED
        finally:
            await place.execute(f"DROP USER {user}@'127.0.0.1'")


async def test_slots_are_kept_over_a_failover_where_the_server_knows_how(stack: StackAddresses) -> None:
    async with fresh_place("postgres", stack) as place:
        version = int((await place.fetch("SHOW server_version_num"))[0][0])
    assert await failover_slots(place.dsn) == (version >= 170_000)
