"""`crossfade migrate plan` and `start`: from a table that is not in Qdrant to a proof that both stores are equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.flow.site import Site, Store

pytestmark = pytest.mark.stack


@pytest.fixture
def moved(site: Site) -> Store:
    return site.store("moved", "postgres")


async def plan(store: Store) -> tuple[int, dict[str, str]]:
    code, output = await store.command("migrate", "plan", store.name, "--json")
    return code, {step["name"]: step["state"] for step in json.loads(output)["steps"]}


async def start(store: Store, *options: str) -> dict[str, Any]:
    code, output = await store.command("migrate", "start", store.name, "--json", *options)
    assert code == 0, output
    return dict(json.loads(output))


async def test_a_move_is_planned_done_proved_and_not_done_twice(moved: Store, tmp_path: Path) -> None:
    done = {"configuration": "done", "capture": "done"}
    assert await plan(moved) == (0, {**done, "backfill": "to do", "proof": "to do"})
    assert await moved.points("row-29") == []

    reported = await start(moved, "--html", str(tmp_path / "proof.html"))
    assert (reported["backfill"]["rows"], reported["backfill"]["state"]) == (30, "done")
    assert (reported["proof"]["verdict"], reported["proof"]["legacy_documents"]) == ("equal", 30)
    assert moved.name in (tmp_path / "proof.html").read_text(encoding="utf-8")
    assert len(await moved.points("row-29")) == 1
    assert await plan(moved) == (0, {**done, "backfill": "done", "proof": "done"})

    again = await start(moved)
    assert (again["backfill"], again["proof"]["verdict"]) == (None, "equal")
    code, output = await moved.command("migrate", "plan", moved.name)
    assert code == 0
    assert "30 rows, 30 points" in output
