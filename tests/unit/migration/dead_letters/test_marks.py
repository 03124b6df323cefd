"""Marks contain exactly the offsets that were added, also after they were written to a record and read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration.dead_letters.marks import ReplayMarks

OFFSETS = st.lists(st.integers(0, 60), max_size=40)


@given(OFFSETS)
def test_exactly_what_was_added_is_in_the_marks_after_a_record(offsets: list[int]) -> None:
    marks = ReplayMarks()
    for offset in offsets:
        marks = marks.add(offset)
        marks = ReplayMarks.decode(marks.encode())
    assert {offset for offset in range(70) if offset in marks} == set(offsets)


@given(OFFSETS)
def test_the_order_of_adding_makes_no_difference(offsets: list[int]) -> None:
    forward, backward = ReplayMarks(), ReplayMarks()
    for offset in offsets:
        forward = forward.add(offset)
    for offset in reversed(offsets):
        backward = backward.add(offset)
    assert forward == backward


def test_offsets_in_a_row_take_no_room() -> None:
    marks = ReplayMarks()
    for offset in range(1000):
        marks = marks.add(offset)
    assert marks == ReplayMarks(1000, ())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"below": 1, "above": [1]}', b'{"below": null, "above": []}'])
def test_the_record_of_somebody_else_is_not_taken_for_marks(data: bytes) -> None:
    with pytest.raises(ValueError, match="no replay marks"):
        ReplayMarks.decode(data)
