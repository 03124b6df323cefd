"""Missing rights on crossfade's own tables are found before a role needs them, and the named GRANT is enough."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from connectors.sql.checks import OWN_TABLES
from connectors.sql.databases import check_legacy, open_legacy
from domain.legacy import Diagnostic
from stack.layout import StackAddresses
from tests.contract.legacy_places import DATABASES, DOCUMENTS, Place, fresh_place

pytestmark = pytest.mark.stack


@pytest.fixture(params=DATABASES)
async def place(request: pytest.FixtureRequest, stack: StackAddresses) -> AsyncIterator[Place]:
    async with fresh_place(request.param, stack) as made:
        await made.execute(DOCUMENTS[made.connector])
        legacy = await open_legacy("documents", made.collection(), made.dsn)
        await legacy.prepare()
        await legacy.close()
        yield made


def rights(findings: list[Diagnostic]) -> list[Diagnostic]:
    return [
        one for one in findings if one.remedy and one.remedy.startswith("GRANT") and "REPLICATION" not in one.remedy
    ]


async def test_a_right_that_is_missing_on_any_own_table_is_an_error_whose_remedy_is_enough(place: Place) -> None:
    user = f"poor_{place.schema[-8:]}"
    account = user if place.connector == "postgres" else f"'{user}'@'%'"
    host, scheme = place.dsn.rpartition("@")[2].partition("/")[0], place.dsn.partition(":")[0]
    if place.connector == "postgres":
        database = place.dsn.rpartition("/")[2]
        await place.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'p'", f"GRANT USAGE ON SCHEMA {place.schema} TO {user}")
    else:
        database = place.schema
        await place.execute(f"CREATE USER {account} IDENTIFIED BY 'p'")
    await place.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {{t}} TO {account}")
    for own in OWN_TABLES[:2]:
        await place.execute(f"GRANT SELECT, INSERT, UPDATE ON {place.schema}.{own} TO {account}")
    dsn = f"{scheme}://{user}:p@{host}/{database}"
    try:
        found = rights(await check_legacy("documents", place.collection(), dsn))
        named = {
            own
            for own in OWN_TABLES
            if any(f"{own} TO" in str(one.remedy).replace('"', "").replace("`", "") for one in found)
        }
        assert named >= set(OWN_TABLES[:2])
        if place.connector == "postgres":
            assert named == set(OWN_TABLES)
        for _ in range(3):
            for one in rights(await check_legacy("documents", place.collection(), dsn)):
                assert one.level == "error"
                await place.execute(str(one.remedy).replace("CURRENT_USER", account))
        assert rights(await check_legacy("documents", place.collection(), dsn)) == []
        legacy = await open_legacy("documents", place.collection(), dsn)
        await legacy.prepare()
        await legacy.ledger.set_meta("something", 5)
        await legacy.close()
    finally:
        if place.connector == "postgres":
            await place.execute(f"DROP OWNED BY {user}", f"DROP ROLE {user}")
        else:
            await place.execute(f"DROP USER {account}")
