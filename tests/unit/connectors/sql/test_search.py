"""Statements of the searches: names that no column has, and comparisons in the column's own character set."""

from __future__ import annotations

import pytest

from connectors.sql.layout import Column, Layout
from connectors.sql.mariadb.expressions import key_condition
from connectors.sql.mariadb.search import conditions
from connectors.sql.search import SCORE, free_name
from schemas.settings import Collection
from schemas.values import Kind


def layout(*names: str, charset: str | None = None) -> Layout:
    collation = None if charset is None else (charset, f"{charset}_general_ci")
    columns = {name: Column(name, "varchar(9)", Kind.TEXT, collation=collation) for name in ("id", "body", *names)}
    columns["crossfade_version"] = Column("crossfade_version", "bigint", Kind.INTEGER)
    collection = Collection(table="d.t", key=("id",), text=("body",), metadata=names)
    return Layout("documents", collection, "d", "t", columns)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("score",), SCORE),
        ((SCORE,), SCORE + "_"),
        ((SCORE.upper(), SCORE + "_"), SCORE + "__"),
    ],
)
def test_the_score_has_a_name_that_no_column_has(names: tuple[str, ...], expected: str) -> None:
    assert free_name(layout(*names), SCORE) == expected


def test_a_text_is_compared_in_the_columns_own_character_set() -> None:
    (given, values) = conditions(layout("tag", charset="latin1"), "default", {"tag": "x"})
    assert "t.`tag` = CONVERT(%s USING latin1) COLLATE latin1_general_ci AND" in given
    assert values == ["x", "x"]
    (given, _) = conditions(layout("tag"), "default", {"tag": "x"})
    assert "t.`tag` = %s AND" in given


def test_a_key_is_compared_in_its_own_character_set() -> None:
    table = layout()
    assert key_condition(table, [("a",), ("b",)]) == ("t.`id` IN (%s, %s)", ["a", "b"])
    key = Column("id", "varchar(9)", Kind.TEXT, collation=("latin1", "latin1_bin"))
    latin = Layout("documents", table.collection, "d", "t", {**table.columns, "id": key})
    assert key_condition(latin, [("a",)])[0] == "t.`id` IN (CONVERT(%s USING latin1) COLLATE latin1_bin)"
