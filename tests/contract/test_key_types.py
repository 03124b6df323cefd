"""Every type of a key column, alone and in a key of several columns.

A type is refused with a reason, or each row is read exactly once however the table is divided, found by its id,
written, and counted in checksums.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from connectors.errors import Misconfigured
from connectors.sql.databases import LegacyConnector, check_legacy, open_legacy
from domain.legacy import LegacyChange, LegacyVerdict
from schemas.content import Content
from schemas.settings import Collection, Connector
from stack.layout import StackAddresses
from tests.contract.key_types import KEY_TYPES, KeyType
from tests.contract.legacy_places import DATABASES, Place, fresh_place

pytestmark = pytest.mark.stack
DRAWN = 12
KEYS = {"alone": ("k",), "between": ("w", "k", "n")}
OTHERS: dict[Connector, str] = {
    "postgres": """n integer NOT NULL DEFAULT 0, w varchar(60) COLLATE "C" NOT NULL DEFAULT ''""",
    "mariadb": "n int NOT NULL DEFAULT 0, w varchar(60) COLLATE utf8mb4_nopad_bin NOT NULL DEFAULT ''",
}


def collection(place: Place, key: tuple[str, ...]) -> Collection:
    return place.collection(key=key, text=("body",), metadata=(), tenant=None)


async def made(place: Place, kind: KeyType, key: tuple[str, ...]) -> int:
    """Create a table with the key, and rows of edge values and random values. Return the number of rows."""
    declared = kind.declared.replace("{s}", place.schema)
    null = "" if "GENERATED ALWAYS AS (" in declared or " AS (" in declared else " NOT NULL"
    await place.execute("DROP TABLE IF EXISTS {t}", *(each.replace("{s}", place.schema) for each in kind.before))
    await place.execute(
        f"CREATE TABLE {{t}} (k {declared}{null}, {OTHERS[place.connector]}, body text, version_ int DEFAULT 1, "
        f"crossfade_version bigint, {'UNIQUE' if kind.refused else 'PRIMARY KEY'} ({', '.join(key)}))"
    )
    if kind.draw is None:
        return 0
    if place.connector == "postgres":
        await place.execute("ALTER TABLE {t} REPLICA IDENTITY FULL")
    chance = random.Random(kind.name)
    values = [*kind.edges, *(kind.draw(chance) for _ in range(DRAWN))]
    # The key's other columns have only a few values, so that some ranges end between equal ones.
    words = ("''", "'w/1 %'", "'W'")
    rows = [f"({value}, {n % 2}, {words[n % 3]}, 'body')" for n, value in enumerate(values)]
    conflict = "ON CONFLICT DO NOTHING" if place.connector == "postgres" else "ON DUPLICATE KEY UPDATE n = n"
    await place.execute(f"INSERT INTO {{t}} (k, n, w, body) VALUES {', '.join(rows)} {conflict}")
    if len(key) == 1:
        # In some types a text of blanks is the empty text, which makes no id.
        empty = "k::text = ''" if place.connector == "postgres" else "LENGTH(k) = 0"
        await place.execute(f"DELETE FROM {{t}} WHERE {empty}")
    ((number,),) = await place.fetch("SELECT count(*) FROM {t}")
    return int(number)


@asynccontextmanager
async def opened(place: Place, key: tuple[str, ...]) -> AsyncIterator[LegacyConnector]:
    legacy = await open_legacy("documents", collection(place, key), place.dsn)
    try:
        await legacy.prepare()
        yield legacy
    finally:
        await legacy.close()


async def ranges(legacy: LegacyConnector, rows: int) -> list[tuple[str | None, str | None]]:
    bounds: list[str | None] = [None]
    while (bound := await legacy.bulk.bound(bounds[-1], rows)) is not None:
        bounds.append(bound)
    return list(zip(bounds, [*bounds[1:], None], strict=True))


async def read(legacy: LegacyConnector, after: str | None, upto: str | None, page: int) -> list[str]:
    ids: list[str] = []
    while rows := await legacy.bulk.scan_range(ids[-1] if ids else after, upto, page):
        ids += [row.id for row in rows]
    return ids


async def works(place: Place, kind: KeyType, key: tuple[str, ...]) -> None:
    number = await made(place, kind, key)
    assert number > DRAWN // 2
    findings = await check_legacy("documents", collection(place, key), place.dsn)
    assert [finding.message for finding in findings if finding.level == "error"] == []
    async with opened(place, key) as legacy:
        ids = await read(legacy, None, None, 1000)
        assert len(ids) == len(set(ids)) == number
        for size, page in ((1, 1), (7, 3)):
            parts = await ranges(legacy, size)
            seen = [one for part in parts for one in await read(legacy, *part, page)]
            assert seen == ids, (size, page)
            sums = await legacy.checksums.of_ranges(parts)
            counted = [int(one.partition("-")[0], 16) for one in sums]
            assert counted == [size] * (number // size) + [number % size] * (len(parts) - number // size), (size, page)
        assert await legacy.table.existing([*ids, "not-there", "-1", "日本/1"]) >= set(ids)
        assert set(await legacy.table.rows([*ids, "a\U0001f600"])) >= set(ids)
        await written(place, legacy, ids)


async def written(place: Place, legacy: LegacyConnector, ids: list[str]) -> None:
    """Write and delete every row by its id, as a producer's events do."""
    content = Content(text={"body": "other"})
    outcomes = await legacy.table.apply([LegacyChange(one, 5, 5, content) for one in ids])
    assert {outcome.verdict for outcome in outcomes} == {LegacyVerdict.APPLIED}, outcomes
    found = await place.fetch("SELECT body, crossfade_version, count(*) FROM {t} GROUP BY 1, 2")
    assert found == [("other", 5, len(ids))]
    outcomes = await legacy.table.apply([LegacyChange(one, 6, 6) for one in ids])
    assert {outcome.verdict for outcome in outcomes} == {LegacyVerdict.APPLIED}, outcomes
    assert await place.fetch("SELECT count(*) FROM {t}") == [(0,)]
    await place.execute("TRUNCATE TABLE {t}".replace("{t}", f"{place.schema}.crossfade_ledger"))


@pytest.mark.parametrize("rare", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("use", KEYS)
@pytest.mark.parametrize("connector", DATABASES)
async def test_every_row_is_read_once_found_written_and_counted(
    stack: StackAddresses, connector: Connector, use: str, *, rare: bool
) -> None:
    failed: dict[str, str] = {}
    async with fresh_place(connector, stack) as place:
        for kind in KEY_TYPES[connector]:
            if kind.refused is None and kind.rare == rare:
                try:
                    await works(place, kind, KEYS[use])
                except Exception as error:
                    failed[kind.name] = f"{type(error).__name__}: {error}"
    assert failed == {}


@pytest.mark.parametrize("connector", DATABASES)
async def test_a_type_that_cannot_be_a_key_is_refused_with_the_reason(
    stack: StackAddresses, connector: Connector
) -> None:
    accepted: dict[str, list[str]] = {}
    async with fresh_place(connector, stack) as place:
        for kind in KEY_TYPES[connector]:
            if kind.refused is None:
                continue
            await made(place, kind, ("k",))
            configured = collection(place, ("k",))
            errors = [f for f in await check_legacy("documents", configured, place.dsn) if f.level == "error"]
            if not any("column k" in f.message and str(kind.refused) in f.message and f.remedy for f in errors):
                accepted[kind.name] = [f.message for f in errors]
            with pytest.raises(Misconfigured, match=kind.refused):
                await open_legacy("documents", configured, place.dsn)
    assert accepted == {}
