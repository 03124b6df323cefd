"""Marks remember exactly the offsets that were added, through a commit and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operations.replay_marks import METADATA_BYTES, ReplayMarks, TooManyMarks

OFFSETS = st.lists(st.integers(0, 60), max_size=40)


@given(OFFSETS)
def test_exactly_what_was_added_is_in_the_marks_after_a_commit(offsets: list[int]) -> None:
    marks = ReplayMarks()
    for offset in offsets:
        marks = marks.add(offset)
        marks = ReplayMarks.read(marks.below, marks.metadata())
    assert {offset for offset in range(70) if offset in marks} == set(offsets)


@given(OFFSETS)
def test_the_order_of_adding_makes_no_difference(offsets: list[int]) -> None:
    forward, backward = ReplayMarks(), ReplayMarks()
    for offset in offsets:
        forward = forward.add(offset)
    for offset in reversed(offsets):
        backward = backward.add(offset)
    assert forward == backward


def test_offsets_in_a_row_need_no_metadata() -> None:
    marks = ReplayMarks()
    for offset in range(1000):
        marks = marks.add(offset)
    assert (marks.below, marks.metadata()) == (1000, "")


def test_marks_that_do_not_fit_a_commit_are_refused() -> None:
    marks = ReplayMarks(0, tuple((2 * number + 1, 2 * number + 1) for number in range(METADATA_BYTES)))
    with pytest.raises(TooManyMarks):
        marks.metadata()


def test_metadata_of_somebody_else_is_not_taken_for_marks() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        ReplayMarks.read(0, "leader-epoch")
