"""`SearchBackend` of the legacy side: full-text search in both databases, and cosine search over a pgvector column."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import numpy as np
import pytest

from connectors.errors import Misconfigured, Refused
from connectors.ports import SearchRequest
from connectors.sql.connector import LegacyConnector
from connectors.sql.databases import apply_remedies, open_legacy
from schemas.settings import EmbeddingColumn
from stack.layout import StackAddresses
from tests.contract.legacy_places import DATABASES, DOCUMENTS, Place, content, fresh_place, upsert

pytestmark = pytest.mark.stack

TEXTS = {
    "fox": "The quick brown fox jumps over the lazy dog",
    "kafka": "A broker keeps partitions of a topic; consumers commit offsets",
    "vector": "A vector database finds neighbours of an embedding by cosine similarity",
    "sql": "A relational database answers SQL over tables and indexes",
    "long": "Filler words about databases. " * 200,
}


@pytest.fixture(params=DATABASES)
async def place(request: pytest.FixtureRequest, stack: StackAddresses) -> AsyncIterator[Place]:
    async with fresh_place(request.param, stack) as made:
        await made.execute(DOCUMENTS[made.connector])
        yield made


@pytest.fixture
async def legacy(place: Place) -> AsyncIterator[LegacyConnector]:
    opened = await open_legacy("documents", place.collection(), place.dsn)
    await opened.prepare()
    await apply_remedies(place.dsn, [f for f in await opened.table.check() if f.level == "warning"])
    years = dict(zip(TEXTS, range(2000, 2005), strict=True))
    await opened.table.apply(
        [upsert(one, 3, content(one, text, year=years[one], ok=one == "sql")) for one, text in TEXTS.items()]
        + [
            upsert("acme", 3, content("fox of acme", "a brown fox", "acme")),
            upsert("ACME", 3, content("t", "fox", "ACME")),
        ]
    )
    await place.execute("INSERT INTO {t} (id, title, body) VALUES ('direct', 'no tenant', 'a zebra without tenant')")
    yield opened
    await opened.close()


def ask(
    text: str, limit: int = 10, tenant: str = "default", **filters: str | int | float | bool | None
) -> SearchRequest:
    return SearchRequest(text, None, tenant, limit, filters)


async def found(legacy: LegacyConnector, request: SearchRequest) -> list[str]:
    return [hit.document_id for hit in await legacy.text_search.search(request)]


async def test_the_best_document_comes_first_with_its_text_metadata_and_version(legacy: LegacyConnector) -> None:
    hits = await legacy.text_search.search(ask("brown fox"))
    assert hits[0].document_id == "fox"
    assert hits[0].text == f"fox\n\n{TEXTS['fox']}"
    assert (hits[0].version, hits[0].chunk, hits[0].metadata["year"]) == (3, 0, 2000)
    assert hits[0].score > 0


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("which animal jumps over something, perhaps a quick fox?", "fox"),
        ("How do I look for similar vectors with cosine in a zoo", "vector"),
        ("what does the broker do when consumers are late with their offsets", "kafka"),
    ],
)
async def test_a_question_in_natural_language_finds_the_document_that_answers_it(
    legacy: LegacyConnector, question: str, expected: str
) -> None:
    assert (await found(legacy, ask(question)))[0] == expected


async def test_scores_fall_from_the_first_hit_to_the_last(legacy: LegacyConnector) -> None:
    hits = await legacy.text_search.search(ask("relational database answers about cosine and tables"))
    assert hits[0].document_id == "sql"
    assert len({hit.document_id for hit in hits}) == len(hits) >= 2
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)


async def test_no_tenant_sees_anothers_documents_not_even_by_case(legacy: LegacyConnector) -> None:
    assert await found(legacy, ask("fox")) == ["fox"]
    assert await found(legacy, ask("fox", tenant="acme")) == ["acme"]
    assert await found(legacy, ask("fox", tenant="ACME")) == ["ACME"]
    assert await found(legacy, ask("fox", tenant="other")) == []
    assert await found(legacy, ask("zebra")) == ["direct"]


async def test_filters_are_of_the_columns_type(legacy: LegacyConnector) -> None:
    assert await found(legacy, ask("database", year=2003)) == ["sql"]
    assert await found(legacy, ask("database", ok=True)) == ["sql"]
    assert await found(legacy, ask("zebra", year=None)) == ["direct"]
    assert await found(legacy, ask("database", year=1900)) == []


async def test_a_filter_over_something_else_is_refused(legacy: LegacyConnector) -> None:
    for wrong in ({"colour": "red"}, {"id": "fox"}, {"year": "no number"}):
        with pytest.raises(Refused):
            await legacy.text_search.search(SearchRequest("fox", None, "default", 5, wrong))


async def test_the_limit_holds_and_long_text_is_cut(legacy: LegacyConnector) -> None:
    assert len(await found(legacy, ask("database", limit=2))) == 2
    hits = await legacy.text_search.search(ask("filler"))
    assert [(hit.document_id, len(hit.text)) for hit in hits] == [("long", 2000)]


@pytest.mark.parametrize(
    "text",
    ["", "   ", "'", '"', "'; DROP TABLE x; --", "\\", "a & | ! ( ) : * <->", "%s %", "\x00", "ÄÖ 日本 🎈", "-+@~<>"],
)
async def test_no_question_breaks_the_search(legacy: LegacyConnector, text: str) -> None:
    assert isinstance(await legacy.text_search.search(ask(text)), list)


async def test_a_search_that_was_given_up_leaves_the_pool_usable(legacy: LegacyConnector) -> None:
    for _ in range(8):
        task = asyncio.create_task(legacy.text_search.search(ask("database brown broker")))
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert await found(legacy, ask("fox")) == ["fox"]


async def test_mariadb_without_its_index_says_what_is_missing_and_postgresql_answers_slowly(place: Place) -> None:
    legacy = await open_legacy("documents", place.collection(), place.dsn)
    await legacy.prepare()
    await legacy.table.apply([upsert("a", 1, content("fox", "fox"))])
    if place.connector == "mariadb":
        with pytest.raises(Misconfigured):
            await legacy.text_search.search(ask("fox"))
    else:
        assert await found(legacy, ask("fox and something else entirely")) == ["a"]
    await legacy.close()


async def test_a_collection_without_tenants_answers_only_the_default_tenant(place: Place) -> None:
    legacy = await open_legacy("documents", place.collection(tenant=None), place.dsn)
    assert await found(legacy, ask("fox", tenant="acme")) == []
    await legacy.close()


async def test_pgvector_finds_the_nearest_of_the_tenant(stack: StackAddresses) -> None:
    async with fresh_place("postgres", stack) as place:
        await place.execute(DOCUMENTS["postgres"], "ALTER TABLE {t} ADD COLUMN emb vector(3)")
        column = EmbeddingColumn(column="emb", format="pgvector")
        legacy = await open_legacy("documents", place.collection(embedding=column), place.dsn)
        await legacy.prepare()

        def vector(*numbers: float) -> bytes:
            return np.asarray(numbers, dtype="<f4").tobytes()

        vectors = {"x": vector(1, 0, 0), "xy": vector(1, 1, 0), "z": vector(0, 0, 1)}
        given = {one: content().model_copy(update={"embedding": v}) for one, v in vectors.items()}
        other = content(tenant="acme").model_copy(update={"embedding": vector(1, 0, 0)})
        await legacy.table.apply(
            [upsert(one, 1, c) for one, c in given.items()] + [upsert("a", 1, other), upsert("n", 1)]
        )
        assert legacy.vector_search is not None
        search = legacy.vector_search.search
        hits = await search(SearchRequest("", vector(2, 0.1, 0), "default", 2, {}))
        assert [hit.document_id for hit in hits] == ["x", "xy"]
        assert hits[0].score == pytest.approx(0.9988, abs=1e-3)
        for wrong in (None, vector(1, 0)):
            with pytest.raises(Refused):
                await search(SearchRequest("", wrong, "default", 2, {}))
        await legacy.close()


@pytest.mark.parametrize("name", ["score", "Crossfade_Score"])
async def test_a_column_that_is_called_like_the_score_is_a_column_like_any_other(
    stack: StackAddresses, name: str
) -> None:
    for connector in DATABASES:
        async with fresh_place(connector, stack) as place:
            quote = '"' if connector == "postgres" else "`"
            column = f"{quote}{name}{quote}"
            await place.execute(
                f"CREATE TABLE {{t}} ({column} int PRIMARY KEY, body text, crossfade_version bigint)",
                f"INSERT INTO {{t}} ({column}, body) VALUES (3, 'fox'), (2, 'a fox and a fox'), (1, 'zebra')",
            )
            configured = place.collection(key=(name,), text=("body",), metadata=(), tenant=None)
            legacy = await open_legacy("documents", configured, place.dsn)
            try:
                await apply_remedies(place.dsn, [f for f in await legacy.table.check() if f.level == "warning"])
                for question in ("fox", "fox and something else entirely"):
                    hits = await legacy.text_search.search(ask(question))
                    assert {hit.document_id for hit in hits} == {"2", "3"}
                    assert all(0 < hit.score < 1.5 for hit in hits)
            finally:
                await legacy.close()


async def test_a_text_that_the_columns_character_set_lacks_equals_none_of_its_values(stack: StackAddresses) -> None:
    async with fresh_place("mariadb", stack) as place:
        await place.execute(
            "CREATE TABLE {t} (id int PRIMARY KEY, body text, tag varchar(9), tenant varchar(9), "
            "crossfade_version bigint, FULLTEXT (body)) CHARACTER SET latin1",
            "INSERT INTO {t} (id, body, tag, tenant) VALUES (1, 'fox', '??', '??'), (2, 'fox', '\u00e9', NULL)",
        )
        configured = place.collection(text=("body",), metadata=("tag",))
        legacy = await open_legacy("documents", configured, place.dsn)
        try:
            assert await found(legacy, ask("fox", tenant="\u65e5\u672c")) == []
            assert await found(legacy, ask("fox", tag="\u65e5\u672c")) == []
            assert await found(legacy, ask("fox", tag="\u00e9")) == ["2"]
            assert await found(legacy, ask("fox", tenant="??", tag="??")) == ["1"]
        finally:
            await legacy.close()


@pytest.mark.parametrize("joined", [" ", "-"])
async def test_the_index_has_no_row_refused_that_an_application_writes(
    legacy: LegacyConnector, place: Place, joined: str
) -> None:
    """In PostgreSQL an index over whole texts refuses a row with more than 2^20 bytes of words."""
    # Distinct words of four-byte characters.
    word = "chr(66560 + i / 4096) || chr(66560 + i / 64 % 64) || chr(66560 + i % 64)"
    words = f"(SELECT string_agg({word}, '{joined}') FROM generate_series(0, 200000) i)"
    if place.connector == "mariadb":
        words = f"repeat('word{joined}', 10000)"
    await place.execute(f"INSERT INTO {{t}} (id, title, body) VALUES ('longest', 'aardvark', {words})")
    assert [hit.document_id for hit in await legacy.text_search.search(ask("aardvark"))] == ["longest"]
