"""The whole path through real parts, on each database.

Rows are captured, documents are submitted as a client in another language would do it, and questions are answered.
"""

from __future__ import annotations

import uuid

import httpx
import pytest

from schemas.queries import Backend
from tests.flow.site import Site, Store, eventually
from topics.catalogue import SUBMITTED, dead_letter_topic

pytestmark = pytest.mark.stack


async def test_rows_that_were_there_before_are_in_qdrant_by_the_snapshot(docs: Store) -> None:
    await docs.holds_the_same(await docs.count())
    for number in range(10, 50):
        (point,) = await docs.points(f"row-{number}")
        assert point.text == f"title {number}\n\nThe body of row {number}, which tells of nothing else."
    assert await docs.value("select count(crossfade_version) from {t} where id like 'row-%'") == 0


async def test_a_submitted_document_is_in_the_table_and_found_by_both_backends(docs: Store) -> None:
    reported = await docs.applied(
        "elephant",
        text={"title": "Elephants", "body": "Elephants are the largest land animals alive today."},
        metadata={"kind": "animal", "line": 7},
    )
    (row,) = await docs.fetch("select title, kind, line, crossfade_version from {t} where id = 'elephant'")
    assert row == ("Elephants", "animal", 7, reported.data["version"])
    backends: tuple[Backend, ...] = ("legacy", "qdrant")
    for route in backends:
        query_id = uuid.uuid4().hex
        question = {"id": query_id, "collection": docs.name, "text": "largest land animals", "route": route}
        docs.site.foreign.ask(question)
        answer = (await docs.site.foreign.answer(query_id)).data
        assert (answer["served_by"], answer["degraded"]) == (route, False)
        assert answer["hits"][0]["document_id"] == "elephant"


async def test_direct_writes_reach_qdrant_and_never_come_back(docs: Store) -> None:
    await docs.execute("update {t} set body = 'Changed by the application itself.' where id = 'row-1'")
    await docs.execute("delete from {t} where id = 'row-2'")
    await docs.execute("insert into {t} values ('direct', 'direct', 'Inserted by SQL.', 'sql', 1)")
    await docs.holds_the_same(await docs.count())
    (changed,) = await docs.points("row-1")
    assert changed.text == "title 1\n\nChanged by the application itself."
    assert await docs.points("row-2") == []
    assert await docs.value("select count(crossfade_version) from {t} where id in ('direct', 'row-1')") == 0


async def test_a_null_value_deletes_in_both_stores(docs: Store) -> None:
    cause = docs.delete("row-3")
    for store in ("legacy", "qdrant"):
        assert (await docs.written(cause, store)).data["outcome"] == "applied"
    assert await docs.value("select count(*) from {t} where id = 'row-3'") == 0
    assert await docs.points("row-3") == []
    await docs.holds_the_same(await docs.count())


async def test_bad_events_are_answered_and_kept_and_the_rest_goes_on(docs: Store) -> None:
    foreign = docs.site.foreign
    cause = docs.submit("bad", text={"title": "x"}, metadata={"no_such_column": 1})
    foreign.send(SUBMITTED, f"{docs.name}/broken", "no object", "crossfade.document.submitted.v1")
    await docs.applied("after", text={"title": "after", "body": "What follows a bad event is still written."})
    reported = (await docs.written(cause, None)).data
    assert reported["outcome"] == "dead_lettered"
    assert "no_such_column" in reported["error"]
    kept = await foreign.found(dead_letter_topic(SUBMITTED), lambda s: s.key == f"{docs.name}/bad")
    assert kept.data["id"] == "bad"
    assert kept.headers["__connect.errors.topic"] == SUBMITTED
    await docs.holds_the_same(await docs.count())


@pytest.mark.parametrize(
    ("document_id", "title", "line"),
    [("row-4", "beyond the check constraint", 5000), ("row-5", "beyond the column's limit " * 4, 5)],
)
async def test_what_the_table_refuses_is_kept_and_qdrant_goes_back_to_the_row(
    docs: Store, document_id: str, title: str, line: int
) -> None:
    before = await docs.fetch(f"select * from {{t}} where id = '{document_id}'")
    cause = docs.submit(document_id, text={"title": title, "body": "The table refuses this."}, metadata={"line": line})
    reported = await docs.written(cause, "legacy")
    assert reported.data["outcome"] == "dead_lettered"
    assert reported.data["error"]
    assert await docs.fetch(f"select * from {{t}} where id = '{document_id}'") == before

    async def back() -> bool:
        points = await docs.points(document_id)
        # The refused text was in Qdrant for a moment: only the version shows that this is the row's text again.
        return [p.text for p in points] == [_text(before[0])] and points[0].version > reported.data["version"]

    await eventually(back, "Qdrant holds the row's text again")
    await docs.holds_the_same(await docs.count())


def _text(row: tuple[object, ...]) -> str:
    return f"{row[1]}\n\n{row[2]}"


async def test_the_worker_says_that_it_is_ready_and_counts(site: Site) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.worker.port}", trust_env=False) as client:
        ready = await client.get("/readyz")
        metrics = await client.get("/metrics")
    assert ready.status_code == 200, ready.text
    assert "crossfade_documents_total{" in metrics.text
