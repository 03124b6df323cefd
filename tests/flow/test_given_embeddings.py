"""Precomputed embeddings of a table or a producer are kept in both stores, and missing ones are computed."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

from tests.flow.embedding_tables import COMPUTED, FORMS, GIVEN, LONG_TEXT, Form, Vector, some_vector, unit
from tests.flow.site import Site, Store, eventually

pytestmark = pytest.mark.stack


def label(form: Form) -> str:
    return f"{form.name}-{form.connector}"


@pytest.fixture(params=FORMS, ids=label)
def form(request: pytest.FixtureRequest) -> Form:
    given: Form = request.param
    return given


@pytest.fixture
async def store(site: Site, form: Form) -> Store:
    store = site.store(form.name, form.connector)
    await store.holds_the_same(await store.count())
    return store


async def vectors(store: Store, document_id: str) -> list[Vector]:
    points = await store.points(document_id)
    return [np.frombuffer(point.vector or b"", dtype="<f4") for point in points]


async def column(store: Store, form: Form, document_id: str) -> Vector | None:
    value = await store.value(f"select {form.select} from {{t}} where id = '{document_id}'")
    return None if value is None else form.parse(value)


async def test_a_rows_embedding_is_the_points_vector(store: Store, form: Form) -> None:
    for document_id, vector in GIVEN.items():
        (found,) = await vectors(store, document_id)
        # Qdrant keeps a vector of length one unchanged, and scales any other to that length.
        tolerance = 0.0 if document_id != "longer" else 1e-6
        np.testing.assert_allclose(found, unit(vector), rtol=tolerance, atol=tolerance)
        assert np.array_equal(np.asarray(await column(store, form, document_id)), vector)


async def test_a_long_text_with_an_embedding_is_one_point(store: Store) -> None:
    (point,) = await store.points("given-long")
    assert point.text == LONG_TEXT
    assert point.vector == some_vector(3).tobytes()


async def test_a_missing_embedding_is_computed_for_qdrant_alone(store: Store, form: Form) -> None:
    expected = await store.ports.embedder.embed_documents(list(COMPUTED.values()))
    for document_id, vector in zip(COMPUTED, expected, strict=True):
        (found,) = await vectors(store, document_id)
        # The result of an 8-bit model depends slightly on the rest of the batch.
        assert float(found @ np.frombuffer(vector, dtype="<f4")) > 0.999
        assert await column(store, form, document_id) is None


# All vectors of a pgvector column have the same length.
@pytest.mark.parametrize("form", [form for form in FORMS if form.name != "pgvector"], ids=label, indirect=True)
async def test_an_embedding_of_another_length_is_computed_by_chunks(store: Store) -> None:
    points = await store.points("other-model")
    (chunks,) = await store.ports.embedder.chunked([LONG_TEXT])
    assert [point.text for point in points] == list(chunks)
    assert len(points) > 1


async def test_a_producers_embedding_is_in_the_column_and_in_qdrant(store: Store, form: Form) -> None:
    vector = some_vector(4)
    text = "This text did not make that vector."
    await store.applied("produced", text=text, embedding=vector.tolist(), embedding_model="all-MiniLM-L6-v2")
    (found,) = await vectors(store, "produced")
    np.testing.assert_array_equal(found, vector)
    np.testing.assert_array_equal(np.asarray(await column(store, form, "produced")), vector)
    await store.holds_the_same(await store.count())


@pytest.mark.parametrize("form", [form for form in FORMS if form.name == "pgvector"], ids=label, indirect=True)
async def test_both_backends_search_by_the_given_vectors(store: Store) -> None:
    question = "Which document has the vector of this very question?"
    vector = np.frombuffer(await store.ports.embedder.embed_query(question), dtype="<f4")
    await store.applied("found by vector", text="No word in common, but the same direction.", embedding=vector.tolist())
    for route in ("legacy", "qdrant"):
        query_id = uuid.uuid4().hex
        store.site.foreign.ask({"id": query_id, "collection": store.name, "text": question, "route": route})
        answer = (await store.site.foreign.answer(query_id)).data
        assert (answer["served_by"], answer["degraded"]) == (route, False)
        assert answer["hits"][0]["document_id"] == "found by vector"
        assert answer["hits"][0]["score"] == pytest.approx(1.0, abs=1e-3)


async def test_an_embedding_that_alone_changes_by_sql_reaches_qdrant(store: Store, form: Form) -> None:
    vector = some_vector(5)
    await store.execute(f"update {{t}} set e = {form.literal(vector)} where id = 'changing'")

    async def arrived() -> bool:
        return [point.vector for point in await store.points("changing")] == [vector.tobytes()]

    await eventually(arrived, "the changed embedding is in Qdrant")
    await store.holds_the_same(await store.count())
