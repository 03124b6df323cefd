"""The verifier is killed at each of its failpoints and started again.

It reaches the same verdict, and does not read unchanged rows again.
"""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import pytest

from connectors.failpoints import PLACES
from tests.contract.legacy_places import DATABASES
from tests.flow.site import Site, Store
from tests.flow.worker_process import COMMAND_BOUND_S, MAIN

pytestmark = pytest.mark.stack
SMALL = ("--range-rows", "10", "--page", "5", "--recheck-delay", "0.5", "--sample", "0", "--json")
PUBLISHING = "verify.before_publish"
KILLED_AT = {"verify.after_rows": 4, "verify.after_save": 2, "verify.after_points": 1, PUBLISHING: 1}


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.long) if name == "mariadb" else name for name in DATABASES]
)
async def store(site: Site, request: pytest.FixtureRequest) -> Store:
    store = site.store("checked", request.param)
    await store.holds_the_same(await store.count())
    return store


async def run(store: Store, *options: str, failpoint: str = "") -> tuple[int, dict[str, Any]]:
    code, output = await store.command("verify", store.name, *SMALL, *options, failpoint=failpoint)
    return code, json.loads(output) if output else {}


def test_each_failpoint_of_the_verifier_is_tried() -> None:
    assert {place for place in PLACES if place.startswith("verify.")} == set(KILLED_AT)


async def test_a_verifier_that_was_killed_anywhere_comes_to_the_same_verdict(store: Store) -> None:
    rows = await store.count()
    for place, times in KILLED_AT.items():
        if place == PUBLISHING:
            continue
        code, _ = await run(store, "--full", failpoint=f"{place}:{times}")
        assert code == -signal.SIGKILL, place
        code, again = await run(store, "--full")
        assert (code, again["verdict"], again["legacy_documents"]) == (0, "equal", rows), place
        assert [each["verdict"] for each in again["ranges"]] == ["equal"] * len(again["ranges"])
    code, output = await run(store)
    assert (code, output["verdict"], output["rows_read"]) == (0, "equal", 0)


async def test_a_verifier_that_was_killed_before_it_reported_finds_the_same_again(store: Store) -> None:
    async with store.uncaptured():
        await store.execute("update {t} set body = 'Changed beside capture.' where id = 'row-11'")
    code, _ = await run(store, "--repair", failpoint=f"{PUBLISHING}:{KILLED_AT[PUBLISHING]}")
    assert code == -signal.SIGKILL
    # The refresh was appended before the kill; nothing else repairs the document.
    await store.holds_the_same(await store.count())
    code, output = await run(store)
    assert (code, output["verdict"], output["listed"]) == (0, "equal", [])


async def test_rounds_go_on_until_a_signal_and_end_cleanly(store: Store) -> None:
    process = await asyncio.create_subprocess_exec(
        *(*MAIN, "verify", store.name, "--continuous", "--cpu-share", "1", "--json", "--sample", "0"),
        *("--config", str(store.site.config), "--home", str(store.site.home)),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    rounds: list[dict[str, Any]] = []
    async with asyncio.timeout(COMMAND_BOUND_S):
        while len(rounds) < 3:
            rounds.append(json.loads(await process.stderr.readline()))
        process.send_signal(signal.SIGTERM)
        code = await process.wait()
    assert [each["round"] for each in rounds] == [1, 2, 3]
    assert {each["verdict"] for each in rounds} == {"equal"}
    assert rounds[2]["oldest_at_ms"] > rounds[1]["oldest_at_ms"]
    assert code == 0
