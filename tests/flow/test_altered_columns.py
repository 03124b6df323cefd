"""A table whose columns change under a running worker is opened again. Nothing is refused, and the stores are equal."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from migration.opener import open_stores
from schemas.settings import Connector
from tests.contract.legacy_places import DATABASES
from tests.flow.foreign import WAIT_S
from tests.flow.site import Site, eventually

pytestmark = pytest.mark.stack

CHANGE = {
    "postgres": 'alter table {t} alter id type text collate "C", alter line type text',
    "mariadb": "alter table {t} modify id varchar(40) collate utf8mb4_nopad_bin not null, modify line varchar(40)",
}


@pytest.mark.parametrize("connector", DATABASES)
async def test_a_key_and_metadata_of_another_type_are_served_without_a_restart(
    site: Site, connector: Connector
) -> None:
    store = site.store("altered", connector)
    await store.applied("18", text={"title": "eighteen", "body": "Another row."}, metadata={"kind": "b", "line": 2})
    new = "insert into {t} (id, title, body, line) values ('17abc', 'new', 'A row of the new kind.', 'x')"
    async with AsyncExitStack() as opened:
        before = await open_stores(opened, site.opened.settings, site.home, store.name)
        await store.execute(CHANGE[connector])
        await store.execute(new)
        # At once, before the worker has noticed that the columns have changed.
        await store.applied("word", text={"title": "word", "body": "Text."})
        found = await store.verify_by(before)
    assert found.verdict != "equal"
    assert any("columns that changed" in error for error in found.errors), found.errors
    cause = store.delete("17")
    for side in ("legacy", "qdrant"):
        assert (await store.written(cause, side)).data["outcome"] == "applied"

    async def captured() -> bool:
        return [point.text for point in await store.points("17abc")] == ["new\n\nA row of the new kind."]

    await eventually(captured, f"the row of the new kind is in Qdrant after {WAIT_S:.0f} s")
    await store.applied("word", metadata={"line": "many"})
    assert await store.fetch("select id from {t} order by id") == [("17abc",), ("18",), ("word",)]
    code, output = await store.command("verify", store.name, "--repair")
    assert code == 3, output  # documents written before the change still hold numbers
    await store.holds_the_same(3)
