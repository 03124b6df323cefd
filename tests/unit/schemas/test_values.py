"""Each metadata value has one canonical form, whether it came from a producer's JSON, Debezium or a driver."""

from __future__ import annotations

import math
import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.content import Scalar
from schemas.values import Kind, canonical

EAST = timezone(timedelta(hours=2))

# Each row is one value as several sources write it.
SAME: list[tuple[Kind, list[Any], Scalar]] = [
    (Kind.TEXT, ["7", 7, Decimal(7)], "7"),
    (Kind.TEXT, ["true", True], "true"),
    (Kind.INTEGER, [7, "7", 7.0, " 7 ", Decimal("7.00")], 7),
    (Kind.INTEGER, [2**63 - 1, str(2**63 - 1)], 2**63 - 1),
    (Kind.INTEGER, [2**64 - 1, str(2**64 - 1)], "18446744073709551615"),
    (Kind.PADDED, ["a", "a  "], "a"),
    (Kind.FLOAT, [0.5, "0.5", Decimal("0.5"), "5e-1"], 0.5),
    (Kind.FLOAT, [0, 0.0, -0.0, "-0"], 0.0),
    (Kind.FLOAT, [math.nan, "NaN", "nan"], "NaN"),
    (Kind.FLOAT, [-math.inf, "-Infinity", "-inf"], "-Infinity"),
    (Kind.FLOAT32, [math.inf, "Infinity"], "Infinity"),
    (Kind.FLOAT32, [0.1, "0.1", struct.unpack("<f", struct.pack("<f", 0.1))[0], "0.100000001"], 0.1),
    (Kind.DECIMAL, ["4.50", 4.5, Decimal("4.500"), "45e-1"], "4.5"),
    (Kind.DECIMAL, ["-0.0", 0, "0E+3", "-0"], "0"),
    (Kind.DECIMAL, ["1E+3", 1000, "1000.000"], "1000"),
    (Kind.DECIMAL, [Decimal("NaN"), "NaN", "NAN"], "NaN"),
    (Kind.FLAG, [True, 1, "true", "1"], True),
    (Kind.FLAG, [5, "5", Decimal(5)], 5),
    (Kind.BOOLEAN, [True, 1, "true", "T", "1", b"\x01"], True),
    (Kind.BOOLEAN, [False, 0, "false", "f", "0", b"\x00"], False),
    (Kind.TIMESTAMP, ["2024-02-03T04:05:06", "2024-02-03 04:05:06.000000", datetime(2024, 2, 3, 4, 5, 6),
                      "2024-02-03T04:05:06.000000000Z"], "2024-02-03T04:05:06.000000"),
    (Kind.TIMESTAMPTZ, ["2024-02-03T06:05:06.5+02:00", "2024-02-03T04:05:06.500000Z", "2024-02-03 04:05:06.5+00",
                        datetime(2024, 2, 3, 6, 5, 6, 500000, EAST)], "2024-02-03T04:05:06.500000Z"),
    (Kind.DATE, ["2024-02-03", "2024-02-03Z", date(2024, 2, 3), datetime(2024, 2, 3, 23, 0, tzinfo=UTC),
                 "2024-02-03T00:00:00"], "2024-02-03"),
    (Kind.TIME, ["04:05:06", "04:05:06.000000000", time(4, 5, 6), "04:05:06Z"], "04:05:06.000000"),
    (Kind.TIMESTAMP, ["infinity", "INFINITY"], "infinity"),
    (Kind.TIMESTAMP, ["0044-03-15 12:00:00 BC"], "0044-03-15T12:00:00.000000 BC"),
    (Kind.TIMESTAMP, ["12026-01-02 03:04:05", "+12026-01-02T03:04:05Z"], "12026-01-02T03:04:05.000000"),
    (Kind.TIMESTAMP, ["0000-00-00 00:00:00"], "0000-00-00T00:00:00.000000"),
    (Kind.TIMESTAMPTZ, ["0001-01-01T00:00:00+02:00", "0001-12-31 22:00:00+00 BC"], "0001-12-31T22:00:00.000000Z BC"),
    (Kind.DATE, ["0044-03-15 BC"], "0044-03-15 BC"),
    (Kind.DATE, ["2015-00-15", "2015-00-15Z"], "2015-00-15"),
    (Kind.TIME, ["24:00", "24:00:00"], "24:00:00.000000"),
    (Kind.TIME, ["-838:59:59.5"], "-838:59:59.500000"),
    (Kind.UUID, ["6F1D8A52-3C1B-5D0E-9A77-2B9F6C3D4E10", UUID("6f1d8a52-3c1b-5d0e-9a77-2b9f6c3d4e10"),
                 "6f1d8a523c1b5d0e9a772b9f6c3d4e10"], "6f1d8a52-3c1b-5d0e-9a77-2b9f6c3d4e10"),
    (Kind.JSON, ['{"b": 1, "a": [1, 2]}', {"a": [1, 2], "b": 1}, b'{"a":[1,2],"b":1}'], '{"a":[1,2],"b":1}'),
    (Kind.JSON, ["[1.10, 1e2]", [1.1, 100], "[1.1,100.0]"], "[1.1,100]"),
    (Kind.JSON, ["123456789012345678901234567890.10"], "123456789012345678901234567890.1"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "values", "form"), SAME, ids=[f"{row[0].value} {row[2]}" for row in SAME])
def test_one_value_has_one_form_whoever_tells_it(kind: Kind, values: list[Any], form: Scalar) -> None:
    for value in values:
        found = canonical(kind, value)
        assert (type(found), found) == (type(form), form), value


def test_the_table_has_every_kind() -> None:
    assert {row[0] for row in SAME} == set(Kind)


@pytest.mark.parametrize("kind", Kind)
def test_null_is_null_of_every_kind(kind: Kind) -> None:
    assert canonical(kind, None) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind.TEXT, ["a"]),
        (Kind.INTEGER, 1.5),
        (Kind.INTEGER, Decimal("1.5")),
        (Kind.INTEGER, "one"),
        (Kind.INTEGER, math.inf),
        (Kind.INTEGER, 2**64),
        (Kind.INTEGER, -(2**63) - 1),
        (Kind.INTEGER, "1" * 5000),
        (Kind.FLOAT, "1e999"),
        (Kind.FLOAT32, 1e39),
        (Kind.DECIMAL, "many"),
        (Kind.DECIMAL, "1e999999999"),
        (Kind.DECIMAL, "1e-999999999"),
        (Kind.BOOLEAN, 2),
        (Kind.BOOLEAN, "yes"),
        (Kind.BOOLEAN, b"\x02"),
        (Kind.TIMESTAMP, "yesterday"),
        (Kind.TIMESTAMP, 1706932800),
        (Kind.TIMESTAMP, "2024-13-01 00:00:00"),
        (Kind.TIMESTAMP, "0000-01-01 00:00:00 BC"),
        (Kind.DATE, "2024-02-30"),
        (Kind.DATE, "0044-02-30 BC"),
        (Kind.DATE, "0000-13-01"),
        (Kind.TIME, "839:00:00"),
        (Kind.TIME, "12:60:00"),
        (Kind.FLAG, 300),
        (Kind.UUID, "not-a-uuid"),
        (Kind.JSON, "{"),
        (Kind.JSON, {1, 2}),
    ],
)
def test_a_value_of_another_kind_is_an_error_that_does_not_repeat_it(kind: Kind, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{type(value).__name__} is not a valid {kind.value}$"):
        canonical(kind, value)


def test_json_that_is_nested_too_deep_to_be_read_is_kept_as_the_database_writes_it() -> None:
    for depth in (150, 5_000):
        text = "[ " * depth + "]" * depth
        assert canonical(Kind.JSON, text) == text
    nested: list[Any] = []
    for _ in range(150):
        nested = [nested]
    with pytest.raises(ValueError, match="list is not a valid json"):
        canonical(Kind.JSON, nested)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.TEXT: st.text(),
    Kind.PADDED: st.text(),
    Kind.INTEGER: st.integers(-(2**63), 2**64 - 1),
    Kind.FLOAT: NUMBERS,
    Kind.FLOAT32: st.floats(width=32, allow_nan=False, allow_infinity=False),
    Kind.DECIMAL: st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30, places=9),
    Kind.BOOLEAN: st.booleans(),
    Kind.FLAG: st.integers(-128, 127),
    Kind.TIMESTAMP: st.datetimes(),
    Kind.TIMESTAMPTZ: st.datetimes(
        datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.sampled_from([UTC, EAST])
    ),
    Kind.DATE: st.dates(),
    Kind.TIME: st.times(),
    Kind.UUID: st.uuids(),
    Kind.JSON: st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
        max_leaves=6,
    ).filter(lambda value: value is not None and not isinstance(value, str)),
}  # fmt: skip


@pytest.mark.parametrize("kind", Kind)
@given(data=st.data())
def test_a_canonical_form_is_its_own_canonical_form(kind: Kind, data: st.DataObject) -> None:
    """A canonical form that is read back from a store must hash as it did when it was written."""
    form = canonical(kind, data.draw(VALUES[kind]))
    assert canonical(kind, form) == form


@given(value=VALUES[Kind.FLOAT32])
def test_a_float_of_32_bits_keeps_its_bits_and_has_one_form_in_every_length(value: float) -> None:
    form = canonical(Kind.FLOAT32, value)
    assert isinstance(form, float)
    assert struct.pack("<f", form) == struct.pack("<f", value + 0.0)
    assert {canonical(Kind.FLOAT32, f"{value:.{digits}g}") for digits in (9, 12, 17)} == {form}


@given(value=VALUES[Kind.DECIMAL], zeros=st.integers(0, 5))
def test_trailing_zeros_and_exponents_make_no_other_decimal(value: Decimal, zeros: int) -> None:
    form = canonical(Kind.DECIMAL, value)
    assert Decimal(str(form)) == value
    assert canonical(Kind.DECIMAL, f"{value:f}" + "0" * zeros if "." in f"{value:f}" else f"{value:f}") == form
    assert canonical(Kind.DECIMAL, f"{value:e}") == form


@given(moment=VALUES[Kind.TIMESTAMPTZ])
def test_an_instant_has_one_form_in_every_time_zone(moment: datetime) -> None:
    forms = {canonical(Kind.TIMESTAMPTZ, moment.astimezone(zone).isoformat()) for zone in (UTC, EAST)}
    assert forms == {canonical(Kind.TIMESTAMPTZ, moment)}


@given(value=VALUES[Kind.JSON])
def test_the_order_of_keys_and_white_space_make_no_other_json(value: Any) -> None:
    spaced = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    assert canonical(Kind.JSON, spaced) == canonical(Kind.JSON, value)
