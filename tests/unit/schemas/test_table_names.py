"""A table's name must be valid for Kafka, Debezium and SQL."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from schemas.settings import Collection


@pytest.mark.parametrize(
    "name", ["Dollar$docs", "public.Dollar$docs", "a b", "a-b", "1a", "a.b.c", "", "ärger", "a.", "a\n"]
)
def test_a_name_that_is_no_part_of_a_topic_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(ValidationError, match="letters, digits and underscores only"):
        Collection(table=name, key=("id",), text=("body",))


@pytest.mark.parametrize("name", ["docs", "public.Articles_2", "_x"])
def test_a_name_of_letters_digits_and_underscores_stays(name: str) -> None:
    assert Collection(table=name, key=("id",), text=("body",)).table == name
