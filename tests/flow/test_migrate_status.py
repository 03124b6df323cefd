"""`crossfade migrate` and `crossfade status` with a running worker: lag, capture, pause, and a view that is updated."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

import pytest

from migration.observe import Observer
from migration.status import Progress
from schemas.tasks import BACKFILL, CONTROL, Control
from tests.flow.site import Site, Store, eventually
from tests.flow.worker_process import settings_of

pytestmark = pytest.mark.stack
ROLES = ["intake", "capture", "resolver", "legacy", "embedder", "vector"]
INTERRUPTED = 130


async def test_lag_and_capture_of_a_collection_are_seen_and_come_to_rest(docs: Store) -> None:
    await docs.applied("status", text={"title": "t", "body": "Seen by status."}, metadata={"kind": "note", "line": 1})
    observer = Observer(settings_of(docs.site.config, docs.site.home))
    last: list[Progress] = []

    async def rests() -> bool:
        last[:] = await observer.look([docs.name])
        return last[0].lags is not None and not any(lag.messages for lag in last[0].lags)

    try:
        await eventually(rests, "every role has committed everything")
    finally:
        await observer.close()
    (found,) = last
    assert found.unanswered == {}
    assert found.lags is not None
    assert [lag.role for lag in found.lags] == ROLES
    assert {lag.seconds for lag in found.lags} == {0.0}
    assert found.capture is not None
    assert (found.capture.state, found.capture.note, found.quarantine) == ("RUNNING", None, None)
    assert found.capture.position is not None
    assert found.capture.behind_bytes is not None
    assert found.capture.kept_bytes is not None


@pytest.fixture
def plain(site: Site) -> Store:
    """A collection on PostgreSQL. The commands print the same for both databases."""
    return site.store("docs", "postgres")


async def test_the_command_tells_it_as_json_and_as_a_page(plain: Store) -> None:
    code, output = await plain.command("migrate", "status", plain.name, "--json")
    (reported,) = json.loads(output)["collections"]
    assert (code, reported["collection"], reported["phase"], reported["stopped"]) == (0, plain.name, "dual_write", None)
    assert [lag["role"] for lag in reported["lag"]] == ROLES
    assert reported["capture"]["state"] == "RUNNING"
    code, output = await plain.command("migrate", "status", plain.name)
    assert code == 0
    assert f"{plain.name}  dual_write  revision " in output
    assert "  active\n" in output
    assert "running  at " in output


async def test_pause_and_resume_reach_the_task_store(plain: Store) -> None:
    for word, paused in (("pause", True), ("resume", False)):
        code, output = await plain.command("migrate", word, plain.name, "--json")
        assert (code, json.loads(output)["paused"]) == (0, paused)
        assert await control(plain) == Control(paused=paused)


async def control(store: Store) -> Control:
    which = f"collection = '{store.name}' and task = '{BACKFILL}' and part = {CONTROL}"
    return Control.model_validate_json(await store.value(f"select state from public.crossfade_tasks where {which}"))


async def test_watch_follows_with_a_line_for_each_look_until_ctrl_c(plain: Store) -> None:
    place = ("--config", str(plain.site.config), "--home", str(plain.site.home))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from operations.cli import main; main()"),
        *("migrate", "status", plain.name, "--watch", "--json", *place),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            lines: list[Any] = [json.loads(await process.stdout.readline()) for _ in range(2)]
            process.send_signal(signal.SIGINT)
            errors = await process.stderr.read()
            assert await process.wait() == INTERRUPTED
    finally:
        if process.returncode is None:
            process.kill()
    assert [line["collections"][0]["collection"] for line in lines] == [plain.name] * 2
    assert b"Traceback" not in errors


async def test_status_of_the_stack_names_the_collections(plain: Store) -> None:
    code, output = await plain.command("status", "--json")
    reported = json.loads(output)
    assert code == 0
    states = {each["collection"]: (each["stopped"], each["unanswered"]) for each in reported["collections"]}
    assert states[plain.name] == (None, None)
    assert {part["state"] for part in reported["parts"]} == {"running"}
