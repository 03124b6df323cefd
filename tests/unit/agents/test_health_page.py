"""A worker's HTTP pages: alive unless a role is stuck or failed, ready if every role is and consuming has begun."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from agents.health import is_stuck, serve_health, state_of
from agents.runner import RoleHealth
from domain.quarantine import Quarantine, Reason

STALL_S = 60.0
Get = Callable[[str], Any]


@asynccontextmanager
async def page(*roles: RoleHealth, started: bool = True) -> AsyncIterator[aiohttp.ClientSession]:
    runner, port = await serve_health(roles, lambda: started, 0, STALL_S)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            yield client
    finally:
        await runner.cleanup()


def role(name: str = "intake", *, busy_for_s: float | None = None, waiting_for: str | None = None) -> RoleHealth:
    busy_since_s = None if busy_for_s is None else time.monotonic() - busy_for_s
    return RoleHealth(name, busy_since_s=busy_since_s, waiting_for=waiting_for)


READY = role()
FAILED = RoleHealth("query", ended_by="Refused: the dead letter is too large")


def busy() -> RoleHealth:
    return role(busy_for_s=1)


def stuck() -> RoleHealth:
    return role("vector", busy_for_s=1000)


def waiting() -> RoleHealth:
    return role("legacy", busy_for_s=1000, waiting_for="StoreUnavailable: down")


@pytest.mark.parametrize(
    ("made", "started", "livez", "readyz"),
    [
        ([role], True, 200, 200),
        ([role, busy], True, 200, 200),
        ([role], False, 200, 503),
        ([role, waiting], True, 200, 503),
        ([role, stuck], True, 503, 503),
        ([role, lambda: FAILED], True, 503, 503),
        ([waiting, stuck], False, 503, 503),
    ],
    ids=["ready", "busy", "not started", "waits for a store", "stuck", "ended by an error", "all at once"],
)
async def test_the_status_says_whether_to_restart_and_whether_to_send_work(
    made: list[Callable[[], RoleHealth]], started: bool, livez: int, readyz: int
) -> None:
    roles = [each() for each in made]  # made now, because the time for which a role is busy counts
    async with (
        page(*roles, started=started) as client,
        client.get("/livez") as alive,
        client.get("/readyz") as ready,
    ):
        assert (alive.status, ready.status) == (livez, readyz)
        reported = await alive.json(), await ready.json()
    assert (reported[0]["alive"], reported[1]["ready"]) == (livez == 200, readyz == 200)
    assert [each["role"] for each in reported[0]["roles"]] == [each.role for each in roles]


async def test_the_page_follows_the_roles_as_they_are_now() -> None:
    changing = role()
    async with page(changing) as client:
        async with client.get("/readyz") as before:
            assert before.status == 200
        changing.waiting_for = "StoreUnavailable: down"
        changing.handled, changing.dead_letters = 7, 2
        async with client.get("/readyz") as after:
            assert after.status == 503
            (reported,) = (await after.json())["roles"]
    reported.pop("idle_s")
    assert reported == {
        "role": "intake",
        "state": "degraded",
        "handled": 7,
        "dead_letters": 2,
        "waiting_for": "StoreUnavailable: down",
        "ended_by": None,
    }


async def test_metrics_are_served_as_prometheus_reads_them() -> None:
    async with page(READY) as client, client.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        assert b"# TYPE" in await response.read()


async def test_the_page_is_served_on_loopback_only() -> None:
    runner, port = await serve_health([READY], lambda: True, 0, STALL_S)
    try:
        assert runner.addresses == [("127.0.0.1", port)]
    finally:
        await runner.cleanup()


def test_a_role_that_ended_by_an_error_is_failed_whatever_else_it_tells() -> None:
    health = RoleHealth("intake", busy_since_s=0.0, waiting_for="a store", ended_by="Refused: too large")
    assert state_of(health, STALL_S, 100.0) == "failed"


@pytest.mark.parametrize(
    ("busy_since_s", "waiting_for", "stuck", "state"),
    [
        (None, None, False, "ready"),
        (100.0, None, False, "ready"),
        (40.0, None, False, "ready"),
        (39.0, None, True, "stuck"),
        (39.0, "a store", False, "degraded"),
        (None, "a store", False, "degraded"),
    ],
)
def test_a_role_is_stuck_in_one_batch_too_long_unless_it_waits_for_a_store(
    busy_since_s: float | None, waiting_for: str | None, stuck: bool, state: str
) -> None:
    health = RoleHealth("intake", busy_since_s=busy_since_s, waiting_for=waiting_for)
    assert (is_stuck(health, STALL_S, 100.0), state_of(health, STALL_S, 100.0)) == (stuck, state)


async def test_a_quarantined_collection_is_named_with_its_reason_and_its_remedy_and_no_restart_is_asked_for() -> None:
    quarantine = Quarantine("articles", Reason.CAPTURE_LOST, "the slot is missing")
    runner, port = await serve_health([READY], lambda: True, 0, STALL_S, lambda: {"articles": quarantine})
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            async with client.get("/readyz") as answer:
                assert answer.status == 503
                (reported,) = (await answer.json())["quarantined"]
            async with client.get("/livez") as alive:
                assert alive.status == 200
    finally:
        await runner.cleanup()
    assert (reported["collection"], reported["reason"]) == ("articles", "capture_lost")
    assert reported["message"].endswith("changes may be missing: the slot is missing")
    assert reported["remedy"] == reported["mend"] == "crossfade recapture articles"
