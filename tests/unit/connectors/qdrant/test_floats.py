"""Floats in payloads: those that Qdrant's JSON reader would change are restored, and only those."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from connectors.qdrant.floats import EXACT, bounds, exact_metadata, exact_texts, read_back

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ORDINARY = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)


def payload(value: float, readings: int) -> dict[str, object]:
    stored = value
    for _ in range(readings):
        stored = read_back(stored)
    return {"metadata": {"f": stored, "t": "x"}, EXACT: exact_texts({"f": value, "t": "x"})}


@given(value=FLOATS, readings=st.integers(0, 5))
def test_a_float_that_was_read_any_number_of_times_is_known_again(value: float, readings: int) -> None:
    assert exact_metadata(payload(value, readings)) == {"f": value, "t": "x"}


@given(value=ORDINARY, steps=st.integers(5, 1000), up=st.booleans())
def test_a_float_that_somebody_changed_is_not_taken_for_the_written_one(value: float, steps: int, up: bool) -> None:
    changed = math.nextafter(value, math.inf if up else -math.inf)
    for _ in range(steps):
        changed = math.nextafter(changed, math.inf if up else -math.inf)
    found = exact_metadata({**payload(value, 0), "metadata": {"f": changed, "t": "x"}})
    assert found == {"f": changed, "t": "x"}


def test_most_floats_need_no_text() -> None:
    assert exact_texts({"a": 19.9, "b": 48.85837, "c": 1.0, "d": 7, "e": "x", "f": None, "g": True}) == {}
    assert exact_texts({"f": 0.30000000000000004}) in ({}, {"f": "0.30000000000000004"})


def test_texts_of_others_are_no_numbers() -> None:
    for text in ("x", None, 5, "nan"):
        assert exact_metadata({"metadata": {"f": 1.5}, EXACT: {"f": text, "g": "1.0"}}) == {"f": 1.5}
    for metadata in (None, 5, "x"):
        assert exact_metadata({"metadata": metadata, EXACT: {"f": "1.0"}}) == metadata
    assert exact_metadata({"metadata": {"f": 1.5}, EXACT: None}) == {"f": 1.5}


@given(value=FLOATS)
def test_bounds_hold_what_a_float_may_become(value: float) -> None:
    least, most = bounds(value)
    reading = value
    for _ in range(3):
        assert least <= reading <= most
        reading = read_back(reading)
