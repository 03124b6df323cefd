"""`crossfade verify` finds changes that escaped capture and damage done to Qdrant, reports them, and repairs them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from domain.points import DocumentPoints, chunks_of
from tests.contract.legacy_places import DATABASES
from tests.flow.site import Site, Store
from topics.catalogue import DIFFERENCES, LOG

pytestmark = pytest.mark.stack
SAME, DIFFERENT = 0, 3


@pytest.fixture(params=DATABASES)
async def store(site: Site, request: pytest.FixtureRequest) -> Store:
    store = site.store("checked", request.param)
    await store.holds_the_same(await store.count())
    return store


async def verified(store: Store, *options: str) -> tuple[int, dict[str, Any]]:
    code, output = await store.command(
        "verify", store.name, "--json", "--recheck-delay", "0.5", "--sample", "0", *options
    )
    document: dict[str, Any] = json.loads(output)
    return code, document


async def found_and_repaired(store: Store, expected: dict[str, str]) -> None:
    """Check that the command finds exactly these differences (kind by document), repairs them, and then finds none."""
    code, output = await verified(store)
    assert {each["id"]: each["kind"] for each in output["listed"]} == expected
    assert (code, output["differences"], output["repaired"]) == (DIFFERENT, len(expected), 0)
    code, output = await verified(store, "--repair")
    assert (code, output["differences"], output["repaired"]) == (DIFFERENT, len(expected), len(expected))
    await store.holds_the_same(await store.count())
    code, output = await verified(store)
    assert (code, output["differences"], output["listed"]) == (SAME, 0, [])
    assert output["legacy_documents"] == output["vector_documents"] == await store.count()
    reported = {
        (seen.headers["ce_type"], seen.data["id"], seen.data["kind"])
        for seen in await store.site.foreign.everything(DIFFERENCES)
        if seen.data["collection"] == store.name
    }
    for event in ("crossfade.difference.found.v1", "crossfade.difference.repaired.v1"):
        assert {(event, document_id, kind) for document_id, kind in expected.items()} <= reported


async def test_writes_that_capture_never_saw_are_found_and_repaired(store: Store) -> None:
    async with store.uncaptured():
        await store.execute("insert into {t} values ('unseen', 'unseen', 'Inserted beside capture.', 'sql', 1)")
        await store.execute("update {t} set body = 'Changed beside capture.' where id = 'row-1'")
        await store.execute("delete from {t} where id = 'row-2'")
    await found_and_repaired(store, {"unseen": "missing", "row-1": "stale", "row-2": "ghost"})
    (unseen,) = await store.points("unseen")
    (changed,) = await store.points("row-1")
    assert unseen.text == "unseen\n\nInserted beside capture."
    assert changed.text == "title 1\n\nChanged beside capture."


async def test_what_was_done_to_qdrant_is_found_and_repaired(store: Store) -> None:
    lost, altered = await overtaken(store, 2)
    text_before = [point.text for point in await store.points(altered)]
    await corrupt(store, lost, ())
    await corrupt(store, altered, ("A text that the table does not hold.",))
    await store.ports.vectors.write(store.name, [points_of(store, "from nowhere", 1, ("A document without a row.",))])
    await found_and_repaired(store, {lost: "missing", altered: "stale", "from nowhere": "ghost"})
    assert len(await store.points(lost)) == 1
    assert [point.text for point in await store.points(altered)] == text_before


async def test_differences_are_printed_for_people_too(store: Store) -> None:
    async with store.uncaptured():
        await store.execute("update {t} set title = 'changed beside capture' where id = 'row-7'")
    code, output = await store.command("verify", store.name, "--recheck-delay", "0.5", "--repair")
    assert code == DIFFERENT
    assert "row-7" in output
    assert "stale" in output
    await store.holds_the_same(await store.count())


async def overtaken(store: Store, count: int) -> list[str]:
    """Return documents whose last entry is not the last one of its log partition.

    The next higher version then belongs to another document's entry, and never to one of theirs.
    """
    entries = [s for s in await store.site.foreign.everything(LOG) if s.data["collection"] == store.name]
    last = {entry.partition: entry.offset for entry in entries}
    newest = {entry.data["id"]: entry for entry in entries}
    found = [i for i, entry in newest.items() if entry.offset < last[entry.partition] and await store.points(i)]
    assert len(found) >= count
    return found[:count]


async def corrupt(store: Store, document_id: str, texts: tuple[str, ...]) -> None:
    """Overwrite the points of a document in Qdrant; without texts, write a tombstone."""
    (point,) = await store.points(document_id)
    await store.ports.vectors.write(store.name, [points_of(store, document_id, point.version + 1, texts)])


def points_of(store: Store, document_id: str, version: int, texts: tuple[str, ...]) -> DocumentPoints:
    vector = np.eye(1, store.ports.embedder.dimension, dtype="<f4").tobytes()
    chunks = chunks_of(texts, [vector] * len(texts))
    tombstones = () if texts else (0,)
    return DocumentPoints(
        document_id, version, "default", "no hash", store.ports.embedder.model_key, {}, chunks, tombstones
    )
