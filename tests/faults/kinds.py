"""The faults. Each acts on the ground under load, heals it, and returns the moment from which recovery counts."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from agents.faust_apps import SESSION_TIMEOUT_S
from connectors.failpoints import ENGINE, PLACES
from stack.layout import PartName
from tests.faults.ground import Ground, Link
from tests.faults.proxy import Mode
from tests.faults.traffic import Application, Books

FIRE_BOUND_S = 30.0
STOP_BOUND_S = 30.0
Act = Callable[[Ground, random.Random], Awaitable[float]]
"""Returns the moment (`time.monotonic`) from which recovery counts: the kill, or the end of a disturbance."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault. With `repairs`, dead letters may leave Qdrant behind the table until `verify --repair`."""

    kind: str
    act: Act
    repairs: bool = False


async def worker_killed(place: str, ground: Ground, rng: random.Random) -> float:
    ground.worker.arm(f"{place}:{rng.randint(1, 4)}")
    assert await ground.worker.died(FIRE_BOUND_S), f"{place} was not passed in {FIRE_BOUND_S:.0f} s"
    killed_at = time.monotonic()
    assert ground.worker.fired, f"the worker died by itself:\n{ground.worker.tail()}"
    await ground.revive_workers()
    return killed_at


async def part_killed(name: PartName, ground: Ground, rng: random.Random) -> float:
    ground.stack.part(name).kill()
    killed_at = time.monotonic()
    await asyncio.sleep(rng.choice((0.0, 0.0, 1.5)))
    await ground.restart(name)
    return killed_at


async def worker_frozen(ground: Ground, _: random.Random) -> float:
    """Freeze the worker for longer than its session, let another take over, and then let the first one go on."""
    ground.worker.signal(signal.SIGSTOP)
    try:
        frozen_at = time.monotonic()
        await ground.second.start()
        await asyncio.sleep(max(0.0, SESSION_TIMEOUT_S + 3.0 - (time.monotonic() - frozen_at)))
    finally:
        ground.worker.signal(signal.SIGCONT)
    thawed_at = time.monotonic()
    await asyncio.sleep(2.0)  # both write now, the first one with work that is no longer its own
    await ground.second.stop()
    return thawed_at


async def workers_come_and_go(ground: Ground, rng: random.Random) -> float:
    """Cause overlapping rebalances: a second worker starts, is killed or ended, and starts again."""
    for _ in range(2):
        await ground.second.start()
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        if rng.random() < 0.5:
            ground.second.kill()
        else:
            await ground.second.stop()
    return time.monotonic()


async def link_cut(link: Link, ground: Ground, rng: random.Random) -> float:
    proxy = ground.proxies[link]
    proxy.mode = "refuse"
    proxy.end_connections(reset=False)
    await asyncio.sleep(rng.uniform(0.5, 2.5))
    proxy.mode = "pass"
    return time.monotonic()


async def link_reset(link: Link, ground: Ground, rng: random.Random) -> float:
    for _ in range(rng.randint(2, 6)):
        ground.proxies[link].end_connections(reset=True)
        await asyncio.sleep(rng.uniform(0.05, 0.5))
    return time.monotonic()


async def link_disturbed(mode: Mode, link: Link, ground: Ground, rng: random.Random) -> float:
    """Make a link slow, half-open, or without answers for a while, and end its connections afterwards."""
    proxy = ground.proxies[link]
    before = proxy.swallowed_bytes
    proxy.mode = mode
    await asyncio.sleep(rng.uniform(1.0, 3.0))
    proxy.heal(reset=rng.random() < 0.5)
    assert mode == "slow" or proxy.swallowed_bytes > before, f"nothing passed {link}: the fault was none"
    return time.monotonic()


async def link_silenced(link: Link, ground: Ground, _: random.Random) -> float:
    """Make every connection half-open for good, as behind a firewall that forgot it. Only time limits detect that."""
    ground.proxies[link].silence()
    return time.monotonic()


async def connect_cut_at_start(ground: Ground, rng: random.Random) -> float:
    """Disturb Kafka Connect while the worker starts and asks for its connectors."""
    ground.proxies["connect"].mode = rng.choice(("refuse", "slow", "drop_answers"))
    ground.worker.kill()
    killed_at = time.monotonic()
    ground.worker.launch()
    await asyncio.sleep(rng.uniform(4.0, 8.0))
    ground.proxies["connect"].heal()
    if not await ground.worker.ready():
        await ground.revive_workers()
    return killed_at


async def embedder_spoiled(action: str, ground: Ground, rng: random.Random) -> float:
    ground.worker.arm(f"{ENGINE}:1-{100_000 if action != 'stall' else rng.randint(1, 6)}={action}")
    await asyncio.sleep(rng.uniform(1.0, 2.0))
    ground.worker.arm("")
    return time.monotonic()


async def two_at_once(first: PartName, place: str, ground: Ground, rng: random.Random) -> float:
    """Kill the worker and a part together, and launch the worker before the part is back."""
    ground.worker.arm(f"{place}:1")
    assert await ground.worker.died(FIRE_BOUND_S), f"{place} was not passed in {FIRE_BOUND_S:.0f} s"
    ground.stack.part(first).kill()
    killed_at = time.monotonic()
    ground.worker.launch()
    await asyncio.sleep(rng.uniform(0.0, 4.0))
    await ground.restart(first)
    if not await ground.worker.ready():
        await ground.revive_workers()
    return killed_at


async def column_added(ground: Ground, rng: random.Random) -> float:
    for store in ground.stores:
        column = f"extra_{rng.randrange(10**9)}"
        await store.application.execute(f"alter table {store.name} add column if not exists {column} varchar(20)")
    return time.monotonic()


async def column_gone_for_a_while(change: str, back: str, ground: Ground, rng: random.Random) -> float:
    """Remove a text column while a row changes, bring it back, and recapture the collection once it is quarantined."""
    store = rng.choice(ground.stores)
    row = f"insert into {store.name} (id, title, kind, line) values ('gone-{rng.randrange(10**9)}', 'x', 'direct', 1)"
    # Not on the application's connection, whose own writes wait until the column is back.
    owner = Application(store.connector, getattr(ground.addresses, store.connector), store.name, Books())
    try:
        await owner.execute(f"alter table {store.name} {change}")
        await owner.execute(row)
        await asyncio.sleep(rng.uniform(0.0, 2.0))
        await owner.execute(f"alter table {store.name} {back}")
    finally:
        await owner.close()
    await ground.stopped_and_recaptured(STOP_BOUND_S)
    return time.monotonic()


def _of_a_worker(place: str) -> bool:
    return place != ENGINE and not place.startswith(("verify.", "backfill.", "adoption."))


def _all() -> dict[str, Fault]:
    faults = [
        *(Fault(f"worker killed at {place}", partial(worker_killed, place)) for place in PLACES if _of_a_worker(place)),
        *(Fault(f"{part} killed", partial(part_killed, part)) for part in PARTS),
        Fault("worker frozen, another takes over", worker_frozen),
        Fault("workers come and go", workers_come_and_go),
        *(Fault(f"{link} cut", partial(link_cut, link)) for link in DATA_LINKS),
        *(Fault(f"{link} reset", partial(link_reset, link)) for link in DATA_LINKS),
        *(Fault(f"{link} slow", partial(link_disturbed, "slow", link)) for link in DATA_LINKS),
        *(Fault(f"{link} half-open", partial(link_disturbed, "swallow", link)) for link in DATA_LINKS),
        *(Fault(f"{link} answers dropped", partial(link_disturbed, "drop_answers", link)) for link in DATA_LINKS),
        *(Fault(f"{link} connections silent for good", partial(link_silenced, link)) for link in DATA_LINKS),
        Fault("connect away at the worker's start", connect_cut_at_start),
        *(Fault(f"embedder: {name}", partial(embedder_spoiled, name), repairs=True) for name in SPOILINGS),
        *(Fault(f"{part} killed with the worker", partial(two_at_once, part, "vector.before_write")) for part in PARTS),
        Fault("column added", column_added),
        Fault("column renamed and back", partial(column_gone_for_a_while, *RENAMED)),
        Fault("column dropped and added", partial(column_gone_for_a_while, *DROPPED)),
    ]
    return {fault.kind: fault for fault in faults}


PARTS: tuple[PartName, ...] = ("kafka", "connect", "postgres", "mariadb", "qdrant")
DATA_LINKS: tuple[Link, ...] = ("kafka", "postgres", "mariadb")
RENAMED = ("rename column body to text_of", "rename column text_of to body")
DROPPED = ("drop column body", "add column body text")
SPOILINGS = ("nan", "dimension", "stall")
FAULTS = _all()
