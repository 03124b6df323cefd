"""How MariaDB's columns are understood from its information schema, and how they are read."""

from __future__ import annotations

from typing import Any

import pytest

from connectors.sql.layout import Column, Layout
from connectors.sql.mariadb.expressions import read_list
from connectors.sql.mariadb.layout import column_of, enum_labels
from connectors.sql.mariadb.table_checks import without_overlaps
from connectors.sql.values import content_bytes
from domain.legacy import LegacyChange
from schemas.content import Content
from schemas.settings import Collection
from schemas.values import Kind

TEXT: dict[str, Any] = {
    "name": "k", "base": "varchar", "sql_type": "varchar(9)", "is_json": "0", "made": "NEVER", "length": "9",
    "charset": "utf8mb4", "collation": "utf8mb4_bin",
}  # fmt: skip
NUMBER = TEXT | {"base": "int", "length": None, "charset": None, "collation": None}


@pytest.mark.parametrize("charset", ["utf8mb3", "latin1", "cp1251", "utf16le", "gb2312"])
def test_a_key_may_have_a_character_set_that_capture_reads_as_sql_does(charset: str) -> None:
    assert column_of(TEXT | {"charset": charset, "collation": f"{charset}_bin"}).key_refusal is None


@pytest.mark.parametrize("charset", ["sjis", "big5", "greek", "cp866", "tis620", "one_of_another_day"])
def test_a_key_of_any_other_character_set_is_refused(charset: str) -> None:
    refusal = column_of(TEXT | {"charset": charset, "collation": f"{charset}_bin"}).key_refusal
    assert refusal == f"its character set is {charset}, of which capture reads another text than the table holds"


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("CREATE TABLE `t` (\n UNIQUE KEY `k` (`room`,`p` WITHOUT OVERLAPS)\n)", True),
        ("CREATE TABLE `t` (\n `a WITHOUT OVERLAPS` int\n)", False),
        ("CREATE TABLE `a``b` (\n `c` int COMMENT 'it''s \\' WITHOUT OVERLAPS'\n)", False),
        ("CREATE TABLE `t` (\n `c` int COMMENT '\\\\',\n UNIQUE KEY `k` (`p` WITHOUT OVERLAPS)\n)", True),
    ],
)
def test_a_key_without_overlaps_is_told_from_a_name_or_a_comment(created: str, expected: bool) -> None:
    assert without_overlaps(created) is expected


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        (NUMBER | {"sql_type": "int(6) zerofill"}, "CAST(t.`k` AS UNSIGNED) AS `k`"),
        (NUMBER | {"sql_type": "int(6)"}, "t.`k`"),
        (NUMBER | {"base": "float", "sql_type": "float zerofill"}, "CAST(t.`k` AS DOUBLE) AS `k`"),
        (NUMBER | {"base": "enum", "sql_type": "enum('zerofill')"}, "t.`k`"),
    ],
)
def test_zeros_that_a_column_adds_for_show_are_not_read(raw: dict[str, Any], read: str) -> None:
    body, key = Column("body", "text", Kind.TEXT), Column("id", "bigint", Kind.INTEGER)
    version = Column("crossfade_version", "bigint", Kind.INTEGER)
    columns = {"id": key, "body": body, "k": column_of(raw), "crossfade_version": version}
    collection = Collection(connector="mariadb", table="d.t", key=("id",), text=("body",), metadata=("k",))
    assert read_list(Layout("documents", collection, "d", "t", columns)) == (
        f"t.`id`, t.`body`, {read}, t.crossfade_version"
    )


def test_labels_are_read_as_they_are_and_not_as_they_are_printed() -> None:
    printed = r"enum('a','b''c','d,e','f\\g','h\ni','')"
    assert enum_labels(printed) == ("a", "b'c", "d,e", "f\\g", "h\ni", "", "")


def test_a_change_takes_as_many_bytes_as_its_metadata_is_long() -> None:
    def change(note: str) -> LegacyChange:
        return LegacyChange("a", 1, 1, Content(text={"body": "x"}, metadata={"note": note, "year": 1}))

    assert content_bytes(change("n" * 9_000_000)) - content_bytes(change("")) >= 2 * 9_000_000 - 64
