"""A filter finds the same documents in every store, for every metadata type and every kind of value."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from connectors.errors import Refused
from connectors.ports import SearchRequest
from connectors.sql.connector import LegacyConnector
from connectors.sql.databases import apply_remedies, open_legacy
from domain.filters import canonical_filter, matches
from domain.legacy import ColumnDetails, LegacyRow, TableDescription
from schemas.content import Scalar
from schemas.queries import Hit
from schemas.settings import Connector
from schemas.values import Kind
from stack.layout import StackAddresses
from tests.contract.column_values import COLUMNS, create_tables, fill
from tests.contract.legacy_places import DATABASES, fresh_place
from tests.contract.vector_stores import DIMENSION, document, opened, vector

Search = Callable[[dict[str, Scalar]], Awaitable[list[Hit]]]
STORES = ("memory", "embedded", "grpc gateway", "rest gateway")
LIMIT = 200


@asynccontextmanager
async def table_of_every_type(
    connector: Connector, stack: StackAddresses, seed: int
) -> AsyncIterator[tuple[LegacyConnector, list[LegacyRow]]]:
    async with fresh_place(connector, stack) as place:
        await create_tables(place)
        await fill(place, ["documents"], 1, 5, random.Random(seed))
        await place.execute("UPDATE {t} SET body = 'wing'")
        settings = place.collection(text=("body",), metadata=tuple(COLUMNS[connector]), tenant=None)
        legacy = await open_legacy("documents", settings, place.dsn)
        try:
            await legacy.prepare()
            await apply_remedies(place.dsn, [f for f in await legacy.table.check() if "index" in f.message.lower()])
            yield legacy, await legacy.bulk.scan_range(None, None, 1000)
        finally:
            await legacy.close()


def request(wanted: dict[str, Scalar]) -> SearchRequest:
    return SearchRequest("wing", vector(1, 0, 0, 0), "default", LIMIT, wanted)


def values_of(rows: Sequence[LegacyRow], name: str) -> list[Scalar]:
    return list({(type(v), v): v for v in (row.content.metadata[name] for row in rows)}.values())


@pytest.mark.stack
@pytest.mark.parametrize("connector", DATABASES)
async def test_every_value_is_found_by_a_filter_in_the_table_and_in_every_vector_store(
    connector: Connector, stack: StackAddresses
) -> None:
    async with table_of_every_type(connector, stack, 1) as (legacy, rows), AsyncExitStack() as stores:
        searches: dict[str, Search] = {"table": lambda wanted: legacy.text_search.search(request(wanted))}
        points = [document(row.id, 1, metadata=dict(row.content.metadata)) for row in rows]
        for kind in STORES:
            store = await stores.enter_async_context(opened(kind))
            await store.prepare("c", DIMENSION, legacy.table.description.metadata)
            await store.write("c", points)
            searches[kind] = lambda wanted, store=store: store.search("c", request(wanted))  # type: ignore[misc]  # a lambda's default
        wrong: list[object] = []
        for name in COLUMNS[connector]:
            for value in values_of(rows, name):
                wanted = canonical_filter(legacy.table.description, {name: value})
                assert wanted == {name: value}
                expected = {row.id for row in rows if matches(row.content.metadata, wanted)}
                for where, search in searches.items():
                    found = {hit.document_id for hit in await search(wanted)}
                    if found != expected:
                        wrong.append((where, name, value, sorted(found ^ expected)))
        assert wrong == []


@pytest.mark.stack
@pytest.mark.parametrize("connector", DATABASES)
async def test_a_value_that_a_column_cannot_hold_equals_no_row_and_another_kind_or_column_is_refused(
    connector: Connector, stack: StackAddresses
) -> None:
    nowhere: dict[str, list[Scalar]] = {
        "c_int2": [99_999], "c_int8": [2**63], "c_tiny": [999], "c_big": [2**64 - 1], "c_ubig": [-1],
        "c_double": ["NaN", "-Infinity"] if connector == "mariadb" else [7.25],
        "c_numeric": ["1e100"], "c_decimal": ["NaN", "1e64", "0.00000000001"],
        "c_date": ["5874898-01-01", "0000-00-00"] if connector == "postgres" else ["infinity", "0044-03-15 BC"],
        "c_timestamp": ["294277-01-01", "2015-00-01 00:00:00"], "c_datetime": ["12026-01-01 00:00:00"],
        "c_time": ["100:00:00", "-00:00:01"] if connector == "postgres" else ["101:02:03"],
        "c_text": ["nowhere", "a\x00b"], "c_varchar": ["x" * 100], "c_char": ["x" * 100],
        "c_json": ['"a\\u0000b"'], "c_jsonb": ['"a\\u0000b"'],
    }  # fmt: skip
    refused: list[dict[str, Scalar]] = [
        {"colour": "red"}, {"body": "wing"}, {"crossfade_version": 1}, {"c_date": "soon"}, {"c_uuid": "7"},
        {"c_mood" if connector == "postgres" else "c_enum": "furious"}, {"c_json": "{"},
    ]  # fmt: skip
    async with table_of_every_type(connector, stack, 2) as (legacy, _):
        for name, values in nowhere.items():
            for value in values if name in COLUMNS[connector] else []:
                wanted = canonical_filter(legacy.table.description, {name: value})
                assert await legacy.text_search.search(request(wanted)) == [], (name, value)
        for wrong in refused:
            with pytest.raises(Refused):
                await legacy.text_search.search(request(wrong))
            with pytest.raises(ValueError, match="filter: "):
                canonical_filter(legacy.table.description, wrong)


@pytest.mark.stack
async def test_rows_of_json_that_jsonb_cannot_hold_hide_no_other(stack: StackAddresses) -> None:
    values = ['{"x": 1}', '{"x": "\\u0000"}', '"\\ud83d"', '"\\ud83d\\ude00"', "1e200000", '"\\\\u0000"', "7" * 140_000]
    async with fresh_place("postgres", stack) as place:
        await place.execute("CREATE TABLE {t} (id int PRIMARY KEY, body text, c_json json, crossfade_version bigint)")
        for number, value in enumerate(values):
            await place.execute(f"INSERT INTO {{t}} VALUES ({number}, 'wing', '{value}', NULL)")
        settings = place.collection(key=("id",), text=("body",), metadata=("c_json",), tenant=None)
        legacy = await open_legacy("documents", settings, place.dsn)
        try:
            await legacy.prepare()
            await apply_remedies(place.dsn, [f for f in await legacy.table.check() if "index" in f.message.lower()])
            rows = await legacy.bulk.scan_range(None, None, 1000)
            assert len(rows) == len(values)
            for value in ('{"x":1}', '{"x":"\\u0000"}', '"😀"', '"\\\\u0000"'):
                wanted = canonical_filter(legacy.table.description, {"c_json": value})
                found = {hit.document_id for hit in await legacy.text_search.search(request(wanted))}
                assert found == {one.id for one in rows if matches(one.content.metadata, wanted)}, wanted
                assert len(found) == 1, wanted
        finally:
            await legacy.close()


@pytest.mark.stack
async def test_escapes_in_json_of_mariadb_stand_for_their_characters(stack: StackAddresses) -> None:
    async with fresh_place("mariadb", stack) as place:
        await place.execute(
            "CREATE TABLE {t} (id int PRIMARY KEY, body text, c_json json, crossfade_version bigint INVISIBLE,"
            " FULLTEXT (body))",
            r"""INSERT INTO {t} VALUES (1, 'wing', '{"n": "M\\u00fcller"}'), (2, 'wing', '{"u": "http:\\/\\/x"}')""",
            """INSERT INTO {t} VALUES (3, 'wing', '{"n": "Müller"}'), (4, 'wing', '{"n": "Mueller"}')""",
        )
        settings = place.collection(key=("id",), text=("body",), metadata=("c_json",), tenant=None)
        legacy = await open_legacy("documents", settings, place.dsn)
        try:
            await legacy.prepare()
            for value, expected in (('{"n":"Müller"}', {"1", "3"}), ('{"u":"http://x"}', {"2"})):
                wanted = canonical_filter(legacy.table.description, {"c_json": value})
                assert {hit.document_id for hit in await legacy.text_search.search(request(wanted))} == expected
        finally:
            await legacy.close()


KINDS: dict[str, Kind] = {kind.name.lower(): kind for kind in Kind}
GIVEN: list[tuple[str, list[Scalar], Scalar]] = [
    ("decimal", [19.9, "19.90", "1.99e1"], "19.9"),
    ("timestamptz", ["2024-02-03T06:05:06+02:00", "2024-02-03 04:05:06Z"], "2024-02-03T04:05:06.000000Z"),
    ("uuid", ["6F1D8A52-3C1B-5D0E-9A77-2B9F6C3D4E10"], "6f1d8a52-3c1b-5d0e-9a77-2b9f6c3d4e10"),
    ("boolean", ["true", "T", 1, True], True),
    ("flag", ["5", 5, 5.0], 5),
    ("integer", ["7", 7.0, 7], 7),
    ("float", [7, "7", 7.0], 7.0),
    ("text", [7, "7"], "7"),
    ("padded", ["a ", "a"], "a"),
    ("json", ['{"b": 1.0, "a": 2}'], '{"a":2,"b":1}'),
    ("date", ["2024-02-03T10:00:00"], "2024-02-03"),
    ("time", ["10:00"], "10:00:00.000000"),
    ("date", [None], None),
]


@pytest.mark.parametrize(("name", "values", "form"), GIVEN)
def test_a_filter_has_one_form_however_it_is_given(name: str, values: list[Scalar], form: Scalar) -> None:
    description = TableDescription(("id",), ("body",), KINDS, None, None)
    for value in values:
        found = canonical_filter(description, {name: value})[name]
        assert (type(found), found) == (type(form), form)


def test_a_label_that_an_enumeration_has_not_is_refused_and_null_is_none() -> None:
    details = {"text": ColumnDetails(labels=("sad", "happy"))}
    description = TableDescription(("id",), ("body",), KINDS, None, None, details)
    assert canonical_filter(description, {"text": "sad"}) == {"text": "sad"}
    assert canonical_filter(description, {"text": None}) == {"text": None}
    with pytest.raises(ValueError, match="no such label; there are: sad, happy"):
        canonical_filter(description, {"text": "Sad"})
