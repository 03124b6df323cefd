"""The HTTP pages of a worker: alive, ready, metrics. Reads the health of the roles; decides nothing about them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from agents.runner import RoleHealth
from domain.quarantine import Quarantine


def is_stuck(role: RoleHealth, stall_s: float, now_s: float) -> bool:
    """Return whether a role has been in one batch for longer than `stall_s` without waiting for a store."""
    return role.busy_since_s is not None and role.waiting_for is None and now_s - role.busy_since_s > stall_s


def state_of(role: RoleHealth, stall_s: float, now_s: float) -> str:
    """Return ready, degraded (waits for a store), stuck, or failed (ended with an error)."""
    if role.ended_by is not None:
        return "failed"
    if is_stuck(role, stall_s, now_s):
        return "stuck"
    return "degraded" if role.waiting_for else "ready"


def documents_of(quarantines: Mapping[str, Quarantine]) -> list[dict[str, object]]:
    """Return the page's entries for quarantined collections: each with its reason and its remedy."""
    return [{"collection": name, **quarantine.document} for name, quarantine in sorted(quarantines.items())]


def _nothing_stopped() -> Mapping[str, Quarantine]:
    return {}


async def serve_health(
    roles: Sequence[RoleHealth],
    started: Callable[[], bool],
    port: int,
    stall_s: float,
    stopped: Callable[[], Mapping[str, Quarantine]] = _nothing_stopped,
) -> tuple[web.AppRunner, int]:
    """Serve /livez, /readyz and /metrics on loopback; return the runner to clean up, and the port in use.

    `stopped` returns the quarantined collections. /livez ignores them: a restart fixes none of them.
    """

    def report() -> list[dict[str, object]]:
        now = time.monotonic()
        return [
            {
                "role": role.role,
                "state": state_of(role, stall_s, now),
                "handled": role.handled,
                "dead_letters": role.dead_letters,
                "waiting_for": role.waiting_for,
                "ended_by": role.ended_by,
                "idle_s": round(now - role.finished_at_s, 1),
            }
            for role in roles
        ]

    async def livez(_: web.Request) -> web.Response:
        found = report()
        alive = all(role["state"] not in {"stuck", "failed"} for role in found)
        return web.json_response({"alive": alive, "roles": found}, status=200 if alive else 503)

    async def readyz(_: web.Request) -> web.Response:
        found = report()
        quarantines = documents_of(stopped())
        ready = started() and not quarantines and all(role["state"] == "ready" for role in found)
        page = {"ready": ready, "roles": found, "quarantined": quarantines, "stopped": quarantines}
        return web.json_response(page, status=200 if ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    addresses = runner.addresses
    return runner, int(addresses[0][1])
