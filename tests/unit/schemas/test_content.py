"""The sizes of a document's parts, to which one limit applies."""

from __future__ import annotations

import pytest

from schemas.content import Content


@pytest.mark.parametrize(
    ("content", "above"),
    [
        (Content(text={"a": "1234", "b": None}, metadata={"kind": "ää", "year": 2024}), None),
        (Content(text={"a": "123", "b": "ä"}), ("text", 5)),
        (Content(text={"a": "1"}, metadata={"kind": "123", "more": "ä", "year": 2024}), ("metadata", 5)),
    ],
)
def test_the_part_that_is_above_the_limit_is_named(content: Content, above: tuple[str, int] | None) -> None:
    assert content.above(4) == above
