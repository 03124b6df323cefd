"""A row has the same content hash whether SQL reads it or Debezium captured it, for every supported column type.

The captured rows are what the real connectors sent for a table with these columns and values.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from connectors.debezium.changes import decode_capture
from connectors.sql.databases import open_legacy
from domain.legacy import LegacyVerdict
from schemas.content import Content, content_hash
from schemas.documents import DocumentChanged
from schemas.records import Received
from schemas.settings import Connector, EmbeddingColumn
from stack.layout import StackAddresses
from tests.contract.legacy_places import DATABASES, fresh_place, upsert

pytestmark = pytest.mark.stack

SAMPLES = Path(__file__).parent.parent / "unit" / "connectors" / "debezium" / "samples"

COLUMNS: dict[str, dict[str, str]] = {
    "postgres": {
        "title": "varchar(50)",
        "n": "integer",
        "price": "numeric(12,3)",
        "score": "double precision",
        "ok": "boolean",
        "at": "timestamp",
        "atz": "timestamptz",
        "day": "date",
        "uid": "uuid",
        "extra": "jsonb",
        "f4": "real",
        "tm": "time",
        "sm": "smallint",
        "js": "json",
    },
    "mariadb": {
        "title": "varchar(50)",
        "n": "int",
        "price": "decimal(12,3)",
        "score": "double",
        "ok": "tinyint(1)",
        "at": "datetime(6)",
        "atz": "timestamp(6) null",
        "day": "date",
        "uid": "uuid",
        "extra": "json",
        "f4": "float",
        "tm": "time(6)",
        "ub": "bigint unsigned",
        "b1": "bit(1)",
        "en": "enum('x','y')",
    },
}
VALUES: dict[str, dict[str, str]] = {
    "postgres": {
        "title": "'title'",
        "n": "7",
        "price": "12.5",
        "score": "0.1",
        "ok": "true",
        "at": "'2026-01-02 03:04:05.678901'",
        "atz": "'2026-01-02 03:04:05.678901+02'",
        "day": "'2026-01-02'",
        "uid": "'6F1C3A52-7f0e-4f57-9c2b-2a3f1f0a9b11'",
        "extra": '\'{"b": null, "a": [1, 2]}\'',
        "f4": "1.1",
        "tm": "'12:34:56.5'",
        "sm": "3",
        "js": "'{\"z\":   1}'",
    },
    "mariadb": {
        "title": "'title'",
        "n": "7",
        "price": "12.5",
        "score": "0.1",
        "ok": "true",
        "at": "'2026-01-02 03:04:05.678901'",
        "atz": "'2026-01-02 03:04:05.678901'",
        "day": "'2026-01-02'",
        "uid": "'6F1C3A52-7f0e-4f57-9c2b-2a3f1f0a9b11'",
        "extra": '\'{"b": null, "a": [1, 2]}\'',
        "f4": "1.1",
        "tm": "'12:34:56.5'",
        "ub": "18446744073709551615",
        "b1": "b'1'",
        "en": "'y'",
    },
}


def captured(connector: str, what: str) -> list[Received]:
    lines = (SAMPLES / f"debezium_{connector}.jsonl").read_bytes().splitlines()
    return [received(message) for message in map(orjson.loads, lines) if message["what"] == what]


def received(message: dict[str, Any]) -> Received:
    value = None if message["value"] is None else orjson.dumps(message["value"])
    headers = tuple((name, str(text).encode()) for name, text in message["headers"])
    return Received(message["topic"], 0, message["offset"], orjson.dumps(message["key"]), value, headers)


@pytest.mark.parametrize("connector", DATABASES)
async def test_a_row_read_by_sql_has_the_hash_of_the_captured_row(connector: Connector, stack: StackAddresses) -> None:
    async with fresh_place(connector, stack) as place:
        columns = COLUMNS[connector]
        vector = {"emb": "vector(3)"} if connector == "postgres" else {"raw": "blob"}
        listed = ", ".join(f"{name} {kind}" for name, kind in (columns | vector).items())
        await place.execute(
            f"CREATE TABLE {{t}} (id bigint PRIMARY KEY, body text, {listed}, crossfade_version bigint)"
        )
        values = VALUES[connector]
        await place.execute(
            f"INSERT INTO {{t}} (id, body, {', '.join(values)}) VALUES (1, 'body ü', {', '.join(values.values())})",
            "INSERT INTO {t} (id) VALUES (3)",
        )
        name, form = ("emb", "pgvector") if connector == "postgres" else ("raw", "float32")
        collection = place.collection(
            text=("body",),
            metadata=tuple(columns),
            tenant=None,
            embedding=EmbeddingColumn.model_validate({"column": name, "format": form}),
        )
        legacy = await open_legacy("documents", collection, place.dsn)
        await legacy.prepare()
        # The values of these rows are exact, even if capture also produces their forms for other values.
        description = replace(legacy.table.description, details={})

        def reported(record: Received) -> DocumentChanged:
            renamed = (record.value or b"").replace(b'"embedding":', b'"emb":')
            changed = decode_capture(
                Received(record.topic, 0, record.offset, record.key, renamed, record.headers),
                "documents",
                collection,
                description,
                1,
            )
            assert changed is not None
            return changed

        full, empty = await legacy.bulk.scan_range(None, None, 10)
        snapshot = reported(captured(connector, "snapshot")[0])
        first, second, *_ = (reported(record) for record in captured(connector, "insert"))
        assert snapshot.content is not None
        assert full.content.metadata == snapshot.content.metadata
        assert content_hash(full.content) == snapshot.content_hash == first.content_hash
        assert content_hash(empty.content) == second.content_hash
        # A producer's canonical metadata is written and read back unchanged.
        given = Content(text={"body": "body ü"}, metadata=full.content.metadata)
        (outcome,) = await legacy.table.apply([upsert("9", 1, given)])
        assert (outcome.verdict, outcome.reason) == (LegacyVerdict.APPLIED, None)
        assert content_hash((await legacy.table.rows(["9"]))["9"].content) == snapshot.content_hash
        await legacy.close()


@pytest.mark.parametrize(
    ("connector", "sql_type", "value", "form"),
    [
        ("postgres", "real", "'NaN'", "NaN"),
        ("postgres", "numeric", "'-Infinity'", "-Infinity"),
        ("postgres", "timestamp", "'infinity'", "infinity"),
        ("postgres", "date", "'0044-03-15 BC'", "0044-03-15 BC"),
        ("postgres", "jsonb", "'[1.10, 123456789012345678901]'", "[1.1,123456789012345678901]"),
        ("mariadb", "time", "'-100:00:00'", "-100:00:00.000000"),
        ("mariadb", "tinyint(1)", "5", 5),
        ("mariadb", "bigint unsigned", "18446744073709551615", "18446744073709551615"),
        ("mariadb", "date", "'0000-00-00'", "0000-00-00"),
        ("mariadb", "datetime", "'2015-00-15 10:00:00'", "2015-00-15T10:00:00.000000"),
    ],
)
async def test_a_value_that_has_no_number_or_date_is_kept_as_text(
    connector: Connector, sql_type: str, value: str, form: object, stack: StackAddresses
) -> None:
    async with fresh_place(connector, stack) as place:
        async with place.connection() as connection:
            if connector == "mariadb":
                await connection.execute("SET SESSION sql_mode = 'STRICT_ALL_TABLES'")
            table = f"{place.schema}.documents"
            await connection.execute(
                f"CREATE TABLE {table} (id bigint PRIMARY KEY, body text, m {sql_type}, crossfade_version bigint)"
            )
            await connection.execute(f"INSERT INTO {table} (id, body, m) VALUES (1, 'b', {value})")
        collection = place.collection(text=("body",), metadata=("m",), tenant=None)
        legacy = await open_legacy("documents", collection, place.dsn)
        await legacy.prepare()
        (row,) = await legacy.bulk.scan_range(None, None, 9)
        assert row.content.metadata == {"m": form}
        # A producer may send that form.
        (outcome,) = await legacy.table.apply([upsert("2", 1, row.content)])
        assert outcome.verdict is LegacyVerdict.APPLIED
        assert (await legacy.table.rows(["2"]))["2"].content == row.content
        await legacy.close()
