"""Only the changed chunks of a long document are embedded again, as the worker's own counter shows."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.flow.site import Store

pytestmark = pytest.mark.stack
PARAGRAPHS = [
    " ".join(f"Paragraph {n} has a sentence {m} about something of its own." for m in range(12)) for n in range(8)
]


async def embedded_texts(store: Store) -> int:
    """Return how many vectors the worker has computed for a collection."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{store.site.worker.port}", trust_env=False) as client:
        page = (await client.get("/metrics")).text
    counter = rf'^crossfade_embedded_texts_total{{[^}}]*db_collection_name="{store.name}"[^}}]*}} (\S+)'
    found = re.search(counter, page, re.MULTILINE)
    return int(float(found[1])) if found else 0


async def chunks(store: Store, paragraphs: list[str]) -> tuple[str, ...]:
    (found,) = await store.ports.embedder.chunked(["long\n\n" + "\n\n".join(paragraphs)])
    return found


async def test_only_changed_chunks_are_embedded_again(docs: Store) -> None:
    changed = [*PARAGRAPHS]
    changed[5] = changed[5].replace("sentence 7", "sentence of another kind")
    old, new = await chunks(docs, PARAGRAPHS), await chunks(docs, changed)
    fresh = [chunk for chunk in new if chunk not in old]
    assert 0 < len(fresh) < len(new)

    start = await embedded_texts(docs)
    # Every column is named: if an event leaves some out, the row is embedded instead, possibly twice.
    named = {"kind": "note", "line": 1}
    await docs.applied("long", text={"title": "long", "body": "\n\n".join(PARAGRAPHS)}, metadata=named)
    first = await embedded_texts(docs)
    assert first - start == len(old)
    await docs.applied("long", text={"title": "long", "body": "\n\n".join(changed)}, metadata=named)
    assert await embedded_texts(docs) - first == len(fresh)
    assert [point.text for point in await docs.points("long")] == list(new)


async def test_a_change_that_leaves_the_text_alone_embeds_nothing(docs: Store) -> None:
    text = {"title": "kept", "body": "This text stays while its metadata changes."}
    await docs.applied("kept", text=text, metadata={"kind": "note", "line": 1})
    before = await embedded_texts(docs)
    await docs.applied("kept", text=text, metadata={"kind": "note", "line": 2})
    assert await embedded_texts(docs) == before
    await docs.holds_the_same(await docs.count())
