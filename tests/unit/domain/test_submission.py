"""A producer's event becomes content in canonical form, or an error that names the field but not its value."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest

from domain.legacy import TableDescription
from domain.submission import content_of, named_columns, omitted_by
from schemas.cloudevents import InvalidEvent
from schemas.content import Content
from schemas.documents import DocumentSubmitted
from schemas.settings import Collection, EmbeddingColumn
from schemas.values import Kind

ONE = Collection(table="t", key=("id",), text=("body",), metadata=("year", "rating"))
TWO = Collection(table="t", key=("id",), text=("title", "body"), tenant="shop")
METADATA = {"year": Kind.INTEGER, "rating": Kind.DECIMAL}
NAMES = ("small", "small@1")


def content(collection: Collection = ONE, **fields: Any) -> Content:
    submitted = DocumentSubmitted(**({"collection": "docs", "id": "1", "text": "a"} | fields))
    metadata = METADATA if collection is ONE else {}
    table = TableDescription(collection.key, collection.text, metadata, collection.tenant, None)
    return content_of(submitted, collection, table, model_names=NAMES, dimension=3, max_text_bytes=8)


def test_a_string_is_the_text_of_the_one_column_and_metadata_is_canonical() -> None:
    assert content(metadata={"year": "2001", "rating": 4.50}) == Content(
        text={"body": "a"}, metadata={"year": 2001, "rating": "4.5"}
    )


def omitted(collection: Collection, vector: str | None = None, **fields: Any) -> tuple[str, ...]:
    submitted = DocumentSubmitted(**({"collection": "docs", "id": "1"} | fields))
    return omitted_by(submitted, with_column(collection, vector))


def with_column(collection: Collection, vector: str | None) -> Collection:
    """Return the collection, with a column of embeddings if `vector` names one."""
    own = EmbeddingColumn(column=vector, format="float32") if vector else None
    return collection.model_copy(update={"embedding": own})


def test_what_an_event_names_is_all_that_it_does_not_leave_out() -> None:
    def named(vector: str | None, *left: str, brings_vector: bool = False) -> set[str] | None:
        names = named_columns(with_column(TWO, vector), left, brings_vector=brings_vector)
        return None if names is None else set(names)

    assert named(None) is None
    assert named("vec", "title") == {"body", "shop", "vec"}
    assert named("vec", "shop", "vec", brings_vector=True) == {"title", "body"}
    # A vector that no row holds is named in addition to the columns.
    assert named(None, "title", brings_vector=True) == {"body", "shop", ""}


def test_columns_that_were_not_given_are_left_to_the_row_and_null_is_null() -> None:
    assert (content().metadata, omitted(ONE, text="a")) == ({}, ("year", "rating"))
    assert content(metadata={"year": None}).metadata == {"year": None}
    assert omitted(ONE, text="a", metadata={"year": None, "rating": 1}) == ()
    assert content(TWO, text={"body": "b"}).text == {"body": "b"}
    assert omitted(TWO, text={"body": None}, tenant="s") == ("title",)
    assert omitted(TWO, text={"title": None, "body": "b"}) == ("shop",)
    assert omitted(ONE) == ("body", "year", "rating")
    assert omitted(ONE, "vector", text="a", metadata={"year": 1, "rating": 1}) == ("vector",)
    assert omitted(ONE, "vector", text="a", metadata={"year": 1, "rating": 1}, embedding=None) == ()


def test_an_embedding_without_a_column_needs_text_and_tenant() -> None:
    with pytest.raises(InvalidEvent, match="give text and tenant, too: title, shop left out"):
        content(TWO, text={"body": "b"}, embedding=[1.0, 2.0, 3.0])
    assert content(embedding=[1.0, 2.0, 3.0]).embedding


def test_text_columns_stand_in_the_order_of_the_collection() -> None:
    assert content(TWO, text={"body": "b", "title": "t"}).full_text() == "t\n\nb"


def test_a_tenant_is_kept_where_the_table_has_a_column_for_it() -> None:
    assert content(TWO, text={"body": "b"}, tenant="shop-1").tenant == "shop-1"


@pytest.mark.parametrize(
    ("collection", "fields", "message"),
    [
        (ONE, {"text": {"nonsense": "a"}}, "text: no text column nonsense; there are body"),
        (TWO, {"text": "a"}, "text: give an object of the text columns title, body"),
        (ONE, {"metadata": {"color": 1}}, "metadata: no metadata column color; there are year, rating"),
        (TWO, {"text": {"body": "b"}, "metadata": {"color": 1}}, "there are none"),
        (ONE, {"metadata": {"year": "soon"}}, "metadata.year: str is not a valid integer"),
        (ONE, {"metadata": {"year": 2.5}}, "metadata.year: float is not a valid integer"),
        (ONE, {"metadata": {"rating": "many"}}, "metadata.rating: str is not a valid decimal"),
        (ONE, {"text": "12345678\u00e4"}, "text: 10 bytes, the limit is 8"),
        (TWO, {"text": {"title": "12345", "body": "1234"}}, "text: 9 bytes, the limit is 8"),
        (ONE, {"metadata": {"rating": "123456789.5"}}, "metadata: 11 bytes, the limit is 8"),
        (ONE, {"tenant": "other"}, "tenant: the table of 'docs' has no tenant column"),
        (ONE, {"embedding": [1.0, 2.0]}, "embedding: 2 numbers, the model's dimension is 3"),
        (ONE, {"embedding": [1.0, 2.0, math.nan]}, "embedding: NaN"),
        (ONE, {"embedding": [math.inf, -math.inf, 1.0]}, "embedding: NaN, infinite"),
        (ONE, {"embedding": [1e39, 0.0, 0.0]}, "embedding: a number does not fit"),
        (ONE, {"embedding": [0.0, 0.0, 0.0]}, "all zero"),
        (ONE, {"embedding": [1e-60, 0.0, 0.0]}, "all zero"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_collection_has_no_place_for_is_refused(
    collection: Collection, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidEvent) as refused:
        content(collection, **fields)
    assert message in str(refused.value)
    assert "soon" not in str(refused.value)


def test_text_at_the_limit_passes() -> None:
    assert content(text="12345678").text == {"body": "12345678"}


@pytest.mark.parametrize("model", [None, "small", "small@1"])
def test_an_embedding_of_the_model_is_kept_as_little_endian_floats(model: str | None) -> None:
    kept = content(embedding=[1.0, -2.0, 0.5], embedding_model=model)
    assert kept.embedding == struct.pack("<3f", 1.0, -2.0, 0.5)
    assert kept.embedding_model == "small@1"


def test_an_embedding_of_another_model_is_left_out_whatever_its_dimension() -> None:
    kept = content(embedding=[1.0] * 7, embedding_model="large")
    assert (kept.embedding, kept.embedding_model) == (None, None)
