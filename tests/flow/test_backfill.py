"""`crossfade backfill` on the real stack: it is killed at every step during live writes, and both stores end equal."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from tests.contract.legacy_places import DATABASES
from tests.flow.site import Site, Store, eventually

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]
PLACES = ("backfill.after_rows", "backfill.after_insert", "backfill.after_save")


@pytest.fixture(params=DATABASES)
def filled(site: Site, request: pytest.FixtureRequest) -> Store:
    """A collection whose initial load is left to the backfill, on each database in turn."""
    return site.store("filled", request.param)


async def live_writes(store: Store, ended: asyncio.Event) -> int:
    """Change, delete and add rows as an application and as producers do, until `ended` is set; return their number."""
    rng, number = random.Random(5), 0
    while not ended.is_set():
        row = f"row-{rng.randrange(400)}"
        match number % 4:
            case 0:
                await store.execute(f"update {{t}} set body = 'changed by SQL, change {number}' where id = '{row}'")
            case 1:
                await store.execute(f"delete from {{t}} where id = 'row-{rng.randrange(50)}'")
            case 2:
                text = {"title": "sent", "body": f"change {number} " * rng.choice([1, 100])}
                store.submit(row, text=text, metadata={"kind": "note", "line": number})
            case _:
                store.delete(f"row-{rng.randrange(50, 100)}")
        number += 1
        await asyncio.sleep(0.1)
    return number


async def test_killed_at_every_step_during_live_writes_it_ends_with_equal_stores(filled: Store) -> None:
    assert await filled.count() == 400
    assert await filled.points("row-399") == []  # not loaded yet
    ended = asyncio.Event()
    writing = asyncio.create_task(live_writes(filled, ended))
    try:
        for number, place in enumerate(PLACES, 1):
            killed = await filled.command("backfill", filled.name, "--range-rows", "100", failpoint=f"{place}:{number}")
            assert killed[0] == -9, killed
        code, output = await filled.command("backfill", filled.name, "--range-rows", "100", "--json")
    finally:
        ended.set()
        changes = await writing
    assert code == 0, output
    done = json.loads(output)
    assert (done["state"], done["planned"]) == ("done", True)
    assert done["rows"] >= 300  # some of the first hundred were deleted before the backfill reached them
    assert done["recall"] > 0.9
    assert changes > 20
    last = filled.submit("last", text={"title": "last", "body": "what was sent before is done before"})
    await filled.written(last, "qdrant")

    async def same() -> bool:
        proof = await filled.verify()
        return proof.found == 0 and proof.legacy_documents == proof.vector_documents

    await eventually(same, f"both stores of {filled.name} hold the same")
