"""Objects that are not plain tables: each kind works, is refused by `config check` with the reason, or is warned of."""

from __future__ import annotations

from typing import Any

import pytest

from connectors.errors import Misconfigured
from connectors.sql.databases import apply_remedies, check_legacy, open_legacy
from domain.legacy import Diagnostic
from schemas.settings import Connector
from stack.layout import StackAddresses
from tests.contract.legacy_places import DATABASES, Place, content, fresh_place, upsert

pytestmark = pytest.mark.stack
COLUMNS = "id bigint PRIMARY KEY, body text, crossfade_version bigint"
FULL = "ALTER TABLE {t} REPLICA IDENTITY FULL"
PLAIN: dict[str, Any] = {"text": ("body",), "metadata": (), "tenant": None}


async def check(place: Place, **changes: Any) -> list[Diagnostic]:
    return await check_legacy("documents", place.collection(**(PLAIN | changes)), place.dsn)


def named(findings: list[Diagnostic], level: str) -> str:
    return "\n".join(finding.message for finding in findings if finding.level == level)


POSTGRES = {
    "view": (["CREATE TABLE {s}.base (" + COLUMNS + ")", "CREATE VIEW {t} AS SELECT * FROM {s}.base"], "is a view"),
    "materialized view": (
        ["CREATE TABLE {s}.base (" + COLUMNS + ")", "CREATE MATERIALIZED VIEW {t} AS SELECT * FROM {s}.base"],
        "is a materialized view",
    ),
    "sequence": (["CREATE SEQUENCE {t}"], "is a sequence"),
    "foreign table": (
        ["CREATE FOREIGN DATA WRAPPER {s}_w", "CREATE SERVER {s}_s FOREIGN DATA WRAPPER {s}_w",
         "CREATE FOREIGN TABLE {t} (id bigint, body text, crossfade_version bigint) SERVER {s}_s"],
        "is a foreign table",
    ),
    "unlogged": ([f"CREATE UNLOGGED TABLE {{t}} ({COLUMNS})", FULL], "is unlogged"),
    "parent": ([f"CREATE TABLE {{t}} ({COLUMNS})", FULL, "CREATE TABLE {s}.child () INHERITS ({t})"], "inherit from"),
    "rules": (
        [f"CREATE TABLE {{t}} ({COLUMNS})", FULL, "CREATE RULE r AS ON DELETE TO {t} DO INSTEAD NOTHING"], "has rules"
    ),
    "domain over an enum": (
        [f"CREATE TABLE {{t}} ({COLUMNS})", FULL, "CREATE TYPE {s}.mood AS ENUM ('sad')",
         "CREATE DOMAIN {s}.checked AS {s}.mood", "CREATE DOMAIN {s}.twice AS {s}.checked"],
        "twice is a domain over the ENUM",
    ),
    "unlogged partition": (
        ["CREATE TABLE {t} (" + COLUMNS + ") PARTITION BY RANGE (id)", FULL,
         "CREATE UNLOGGED TABLE {s}.one PARTITION OF {t} DEFAULT", "ALTER TABLE {s}.one REPLICA IDENTITY FULL"],
        "partition one is unlogged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", POSTGRES)
async def test_what_postgresql_cannot_capture_is_refused(stack: StackAddresses, kind: str) -> None:
    async with fresh_place("postgres", stack) as place:
        statements, words = POSTGRES[kind]
        await place.execute(*(one.replace("{s}", place.schema) for one in statements))
        try:
            findings = await check(place)
            assert words in named(findings, "error")
            assert all(f.remedy for f in findings if f.level == "error")
        finally:
            if kind == "foreign table":
                await place.execute(f"DROP FOREIGN DATA WRAPPER {place.schema}_w CASCADE")


async def test_a_child_of_a_table_and_a_single_partition_are_tables_of_their_own(stack: StackAddresses) -> None:
    async with fresh_place("postgres", stack) as place:
        await place.execute(
            f"CREATE TABLE {place.schema}.parent (id bigint, body text, crossfade_version bigint)",
            f"CREATE TABLE {{t}} (PRIMARY KEY (id)) INHERITS ({place.schema}.parent)",
            FULL,
        )
        assert named(await check(place), "error") == ""


async def test_a_partitioned_table_needs_the_whole_old_row_of_each_partition(stack: StackAddresses) -> None:
    async with fresh_place("postgres", stack) as place:
        schema = place.schema
        await place.execute(
            f"CREATE TABLE {{t}} ({COLUMNS}) PARTITION BY RANGE (id)",
            f"CREATE TABLE {schema}.low PARTITION OF {{t}} FOR VALUES FROM (MINVALUE) TO (100)",
            f"CREATE TABLE {schema}.high PARTITION OF {{t}} FOR VALUES FROM (100) TO (9999) PARTITION BY RANGE (id)",
            f"CREATE TABLE {schema}.higher PARTITION OF {schema}.high DEFAULT",
        )
        findings = await check(place)
        errors = named(findings, "error")
        assert "the replica identity is not FULL" in errors
        assert "partition low is not FULL" in errors
        assert "partition higher is not FULL" in errors
        assert "in no log; run verify --repair" in named(findings, "warning")
        await apply_remedies(place.dsn, findings)
        assert named(await check(place), "error") == ""
        legacy = await open_legacy("documents", place.collection(**PLAIN), place.dsn)
        try:
            await legacy.prepare()
            given = content().model_copy(update={"text": {"body": "x"}, "metadata": {}})
            outcomes = await legacy.table.apply([upsert(str(n), 1, given) for n in (1, 99, 100, 500)])
            assert [outcome.reason for outcome in outcomes] == [None] * 4
            assert [row.id for row in await legacy.bulk.scan_range("1", None, 10)] == ["99", "100", "500"]
            assert (await legacy.bulk.coverage([(None, "99"), ("99", None)])).outside == 0
            # A partition that is added later has not inherited the replica identity.
            await place.execute(f"ALTER TABLE {{t}} DETACH PARTITION {schema}.low")
            await place.execute(f"CREATE TABLE {schema}.again PARTITION OF {{t}} FOR VALUES FROM (0) TO (100)")
            assert "partition again is not FULL" in named(await check(place), "error")
        finally:
            await legacy.close()


async def test_rows_that_a_policy_hides_are_an_error_and_never_absent(stack: StackAddresses) -> None:
    async with fresh_place("postgres", stack) as place:
        role = f"seen_{place.schema[-8:]}"
        await place.execute(
            f"CREATE TABLE {{t}} ({COLUMNS})",
            FULL,
            "INSERT INTO {t} (id, body) SELECT n, 'body' FROM generate_series(1, 10) n",
            f"CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'p'",
            f"GRANT ALL ON SCHEMA {place.schema} TO {role}",
            f"GRANT ALL ON {{t}} TO {role}",
        )
        dsn = f"postgresql://{role}:p@{place.dsn.rpartition('@')[2]}"
        legacy = await open_legacy("documents", place.collection(**PLAIN), dsn)
        try:
            await legacy.prepare()
            assert len(await legacy.table.rows(["1", "9"])) == 2
            await place.execute("CREATE POLICY few ON {t} USING (id < 5)", "ALTER TABLE {t} ENABLE ROW LEVEL SECURITY")
            findings = await check_legacy("documents", place.collection(**PLAIN), dsn)
            assert "row level security hides rows" in named(findings, "error")
            # This also holds under a running worker: no row is taken for a deleted one.
            for reading in (
                legacy.table.rows(["1", "9"]),
                legacy.table.existing(["9"]),
                legacy.bulk.scan_range(None, None, 10),
                legacy.bulk.coverage([(None, None)]),
                legacy.checksums.of_ranges([(None, None)]),
            ):
                with pytest.raises(Misconfigured, match="row-level security"):
                    await reading
            await place.execute(f"ALTER ROLE {role} BYPASSRLS")
            assert "row level security" not in named(
                await check_legacy("documents", place.collection(**PLAIN), dsn), "error"
            )
        finally:
            await legacy.close()
            await place.execute(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


MARIADB = {
    "view": (["CREATE TABLE {s}.base (" + COLUMNS + ")", "CREATE VIEW {t} AS SELECT * FROM {s}.base"], "is a view"),
    "sequence": (["CREATE SEQUENCE {t}"], "is a sequence"),
    "system-versioned": ([f"CREATE TABLE {{t}} ({COLUMNS}) WITH SYSTEM VERSIONING"], "is system-versioned"),
    **{
        engine: (
            [f"CREATE TABLE {{t}} ({COLUMNS.replace('text', 'varchar(100)')}) ENGINE={engine}"],
            f"engine is {engine}",
        )
        for engine in ("MyISAM", "Aria", "MEMORY")
    },
    "unknown character set": (
        [f"CREATE TABLE {{t}} ({COLUMNS}, other text CHARACTER SET cp1256)"],
        "the character set cp1256",
    ),
    "compressed": ([f"CREATE TABLE {{t}} ({COLUMNS}, other text COMPRESSED)"], "other is COMPRESSED"),
    "inet4": ([f"CREATE TABLE {{t}} ({COLUMNS}, other inet4)"], "other is of type inet4"),
    "inet6": ([f"CREATE TABLE {{t}} ({COLUMNS}, other inet6)"], "other is of type inet6"),
    "without overlaps": (
        [
            f"CREATE TABLE {{t}} ({COLUMNS}, room int, a date, b date, PERIOD FOR p (a, b), "
            "UNIQUE (room, p WITHOUT OVERLAPS))"
        ],
        "is WITHOUT OVERLAPS",
    ),
    "other text": (
        ["CREATE TABLE {t} (id bigint PRIMARY KEY, body text CHARACTER SET greek NOT NULL, crossfade_version bigint)"],
        "column body has the character set greek",
    ),
}


@pytest.mark.parametrize("kind", MARIADB)
async def test_what_mariadb_cannot_capture_is_refused(stack: StackAddresses, kind: str) -> None:
    async with fresh_place("mariadb", stack) as place:
        statements, words = MARIADB[kind]
        await place.execute(*(one.replace("{s}", place.schema) for one in statements))
        findings = await check(place)
        assert words in named(findings, "error")
        assert all(f.remedy for f in findings if f.level == "error")


async def test_what_capture_reads_as_something_else_is_refused_where_it_is_used(stack: StackAddresses) -> None:
    async with fresh_place("mariadb", stack) as place:
        await place.execute(
            f"CREATE TABLE {{t}} ({COLUMNS}, size year(2), word varchar(9) CHARACTER SET cp866, "
            "mood enum('a') CHARACTER SET tis620, same varchar(9) CHARACTER SET cp1251, n int(6) zerofill)",
            "INSERT INTO {t} (id, body, n) VALUES (1, 'x', 42)",
        )
        assert named(await check(place), "error") == ""
        findings = await check(place, metadata=("size", "mood", "same"), tenant="word")
        assert {f.message.split(":")[0] for f in findings if f.level == "error"} == {
            "column size is YEAR(2)",
            "column word has the character set cp866",
            "column mood has the character set tis620",
        }
        assert all(f.remedy for f in findings if f.level == "error")
        legacy = await open_legacy("documents", place.collection(**(PLAIN | {"tenant": "n"})), place.dsn)
        try:
            (row,) = (await legacy.table.rows(["1"])).values()
            assert row.content.tenant == "42"
        finally:
            await legacy.close()


@pytest.mark.parametrize(
    ("action", "warned"),
    [
        ("ON DELETE CASCADE", "ON DELETE CASCADE"),
        ("ON UPDATE CASCADE", "ON UPDATE CASCADE"),
        ("ON DELETE SET NULL", "ON DELETE SET NULL"),
        ("ON DELETE RESTRICT ON UPDATE RESTRICT", None),
    ],
)
async def test_what_a_foreign_key_does_without_the_binary_log_is_warned_of(
    stack: StackAddresses, action: str, warned: str | None
) -> None:
    async with fresh_place("mariadb", stack) as place:
        await place.execute(
            f"CREATE TABLE {place.schema}.authors (id bigint PRIMARY KEY)",
            f"CREATE TABLE {{t}} ({COLUMNS}, author bigint, "
            f"FOREIGN KEY (author) REFERENCES {place.schema}.authors (id) {action})",
        )
        found = named(await check(place, metadata=("author",)), "warning")
        assert ("is not in the binary log" in found) == (warned is not None)
        assert (warned or "") in found
        # A column that is not in Qdrant may change freely. A row that is deleted takes its document with it.
        assert ("is not in the binary log" in named(await check(place), "warning")) == (action == "ON DELETE CASCADE")


async def test_a_partitioned_table_of_mariadb_works_and_is_warned_of(stack: StackAddresses) -> None:
    async with fresh_place("mariadb", stack) as place:
        await place.execute(
            f"CREATE TABLE {{t}} ({COLUMNS}) PARTITION BY RANGE (id) "
            "(PARTITION low VALUES LESS THAN (100), PARTITION high VALUES LESS THAN MAXVALUE)",
            "INSERT INTO {t} (id, body) VALUES (1, 'a'), (99, 'b'), (100, 'c')",
        )
        findings = await check(place)
        assert named(findings, "error") == ""
        assert "rows that come or go with a partition" in named(findings, "warning")
        legacy = await open_legacy("documents", place.collection(**PLAIN), place.dsn)
        try:
            assert [row.id for row in await legacy.bulk.scan_range("1", None, 10)] == ["99", "100"]
            assert (await legacy.bulk.coverage([(None, "99"), ("99", None)])).outside == 0
        finally:
            await legacy.close()


@pytest.mark.parametrize("connector", DATABASES)
async def test_a_key_that_no_index_has_in_its_order_works_and_is_warned_of(
    stack: StackAddresses, connector: Connector
) -> None:
    async with fresh_place(connector, stack) as place:
        await place.execute(
            "CREATE TABLE {t} (a int NOT NULL, b int NOT NULL, body text, crossfade_version bigint, "
            "PRIMARY KEY (a, b))",
            "INSERT INTO {t} (a, b, body) VALUES (1, 9, 'x'), (2, 8, 'x'), (3, 7, 'x')",
        )
        slow = "no index has the key's columns in their order"
        assert slow not in named(await check(place, key=("a", "b")), "warning")
        assert slow in named(await check(place, key=("b", "a")), "warning")
        legacy = await open_legacy("documents", place.collection(**(PLAIN | {"key": ("b", "a")})), place.dsn)
        try:
            assert [row.id for row in await legacy.bulk.scan_range("7/3", None, 10)] == ["8/2", "9/1"]
        finally:
            await legacy.close()


async def test_an_index_that_includes_more_columns_is_the_keys_and_one_of_some_rows_is_not(
    stack: StackAddresses,
) -> None:
    async with fresh_place("postgres", stack) as place:
        await place.execute(
            "CREATE TABLE {t} (a int NOT NULL, b int NOT NULL, c int NOT NULL, body text, crossfade_version bigint, "
            "PRIMARY KEY (a) INCLUDE (b), UNIQUE (c) DEFERRABLE)",
            "CREATE UNIQUE INDEX ON {t} (b) WHERE b > 0",
            FULL,
        )
        assert named(await check(place, key=("a",)), "error") == ""
        for column in ("b", "c"):
            assert "neither the primary key nor unique" in named(await check(place, key=(column,)), "error")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_cannot_hold_every_text_is_refused(stack: StackAddresses, encoding: str) -> None:
    async with fresh_place("postgres", stack) as place:
        await place.execute(
            f"CREATE DATABASE {place.schema} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
        try:
            other = Place("postgres", f"{place.dsn.rpartition('/')[0]}/{place.schema}", "public")
            await other.execute(f"CREATE TABLE {{t}} ({COLUMNS})", FULL)
            findings = await check(other)
            assert f"the database's encoding is {encoding}" in named(findings, "error")
            with pytest.raises(Misconfigured, match=encoding):
                await open_legacy("documents", other.collection(**PLAIN), other.dsn)
        finally:
            await place.execute(f"DROP DATABASE {place.schema} WITH (FORCE)")
