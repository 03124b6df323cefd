"""Which PostgreSQL columns may be a key, with types that not every server has, and which ids are valid."""

from __future__ import annotations

from typing import Any

import pytest

from connectors.sql.layout import HIGHEST_SIGNED, HIGHEST_UNSIGNED, canonical_key
from connectors.sql.postgres.layout import column_of
from schemas.values import Kind

PLAIN: dict[str, Any] = {
    "name": "k", "sql_type": "text", "base": "text", "typtype": "b", "not_null": True, "generated": "", "typmod": -1,
    "deterministic": True, "labels": (),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": "citext", "sql_type": "citext"}, "one row"),
        ({"deterministic": False}, "one row"),
        ({"base": "varchar", "deterministic": False, "typmod": 14}, "one row"),
        ({"base": "bpchar", "typmod": 13}, "one row"),
        ({"base": "mood", "typtype": "e", "labels": ("sad",)}, "ordered by the numbers of its labels"),
        ({"generated": "s"}, "generated"),
        ({"base": "numeric"}, "a key is made of"),
        ({"base": "hstore"}, "a key is made of"),
    ],
)
def test_a_column_whose_order_or_equality_is_not_that_of_its_text_is_no_key(
    changes: dict[str, Any], words: str
) -> None:
    assert words in str(column_of(PLAIN | changes).key_refusal)
    assert column_of(PLAIN).key_refusal is None


def test_the_length_of_a_text_is_that_of_its_type() -> None:
    assert column_of(PLAIN | {"base": "varchar", "typmod": 14}).length == 10
    assert column_of(PLAIN | {"base": "varchar"}).length is None


@pytest.mark.parametrize(
    ("document_id", "kinds", "key"),
    [
        ("", (Kind.TEXT,), None),
        ("a\x00", (Kind.TEXT,), None),
        ("x" * 512, (Kind.TEXT,), ("x" * 512,)),
        ("x" * 513, (Kind.TEXT,), None),
        ("/", (Kind.TEXT, Kind.TEXT), ("", "")),
        ("/1", (Kind.TEXT, Kind.INTEGER), ("", "1")),
        ("1/", (Kind.INTEGER, Kind.INTEGER), None),
        ("a%2Fb/1", (Kind.TEXT, Kind.INTEGER), ("a/b", "1")),
        ("-0", (Kind.INTEGER,), None),
        ("007", (Kind.INTEGER,), None),
        (str(2**63 - 1), (Kind.INTEGER,), (str(2**63 - 1),)),
        (str(2**63), (Kind.INTEGER,), None),
        (str(-(2**63)), (Kind.INTEGER,), (str(-(2**63)),)),
        (str(-(2**63) - 1), (Kind.INTEGER,), None),
    ],
)
def test_an_id_is_one_spelling_of_a_key(document_id: str, kinds: tuple[Kind, ...], key: tuple[str, ...] | None) -> None:
    assert canonical_key(document_id, kinds, [HIGHEST_SIGNED] * len(kinds)) == key


def test_an_unsigned_integer_goes_twice_as_far() -> None:
    highest = str(HIGHEST_UNSIGNED)
    assert canonical_key(highest, (Kind.INTEGER,), [HIGHEST_UNSIGNED]) == (highest,)
    assert canonical_key(str(HIGHEST_UNSIGNED + 1), (Kind.INTEGER,), [HIGHEST_UNSIGNED]) is None
