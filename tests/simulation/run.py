"""The run of a history: its actions until everything rests, then the checks; then a redelivery and a repair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from domain.comparison import Difference
from migration.collection import CollectionPorts
from migration.verify.compare import look_locked
from migration.verify.ledger_audit import unsound
from migration.verify.publish import DifferencePublisher
from migration.verify.recheck import waits
from tests.simulation import actions as act
from tests.simulation.harm import trigger_of
from tests.simulation.history import Generator
from tests.simulation.loop import Fault, Violation, at_once, running
from tests.simulation.places import DOCUMENTS
from tests.simulation.settled import (
    apart,
    check_captured,
    check_counts,
    check_fold,
    check_stores,
    in_qdrant,
    unembeddable,
)
from tests.simulation.world import BUFFER, MOST_POINTS, NAMES, World
from topics.roles import RoleName

ROUNDS = 60
# More than any history needs. Without a limit, a role that reads its own records may go on for ever.
BATCHES = 300


@dataclass
class Outcome:
    """The result of a run. `violation` is None if every invariant held; `done` counts the completed actions."""

    violation: str | None = None
    ends: Counter[str] = field(default_factory=Counter)
    done: int = 0
    trace: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """A hash of everything that happened, in order."""
        return blake2b("\n".join(self.trace).encode(), digest_size=16).hexdigest()


def history_of(seed: int) -> tuple[act.Write, list[act.Action]]:
    """Return the first rows of the tables and the actions of a seed."""
    made = Generator(seed)
    return made.first_rows(), made.actions()


def run(first_rows: act.Write, actions: Sequence[act.Action]) -> Outcome:
    """Run a history to its end, or to the first violation."""
    outcome = Outcome()
    try:
        with running(), World(first_rows, outcome.trace) as world:
            for action in actions:
                world.do(action)
                outcome.done += 1
            finish(world)
            if world.watch.harmed:
                recover(world)
                return outcome
            outcome.ends = check(world)
            redeliver(world)
            check(world)
            repair(world)
    except Violation as violation:
        outcome.violation = str(violation)
    return outcome


def finish(world: World) -> None:
    """Let everything come to rest without further faults. Every other zombie continues only when all others rest."""
    early, late = world.zombies[::2], world.zombies[1::2]
    for zombies in (early, late):
        for process in zombies:
            process.step(MOST_POINTS, Fault.NONE)
        while world.trouble.late:
            world.do(act.Land(0))
        drain(world)
    world.zombies.clear()


def drain(world: World) -> None:
    """Let capture and every role work until nothing is left to read, and commit."""
    for _ in range(ROUNDS):
        for name, connector in world.connectors.items():
            if connector.behind:
                world.do(act.Capture(name, len(connector)))
        for role in NAMES:
            work_off(world, role)
        lags = sum(group.lag() for group in world.groups.values())
        if not lags and not any(connector.behind for connector in world.connectors.values()):
            return
    raise Violation("the agents never come to rest")


def work_off(world: World, role: RoleName) -> None:
    """Let a role handle all available records, and commit."""
    order = tuple(range(4)) * (BUFFER // 4)
    for _ in range(BATCHES):
        process = world.live[role][1]
        world.do(act.Step(role, order, MOST_POINTS))
        if not process.idle:
            raise Violation(f"{process.name} does not come to the end of its batch")
        world.commit(role)
        group = world.groups[role]
        app = world.live[role][0]
        if not app.channel.buffer and all(
            app.positions[place] == group.bus.end_offsets(place[0])[place[1]] for place in group.committed
        ):
            return


def redeliver(world: World) -> None:
    """Have everything delivered again, from the beginning of each table and of each role's topics."""
    for connector in world.connectors.values():
        connector.rewind(len(connector))
    for role in NAMES:
        world.do(act.Rewind(role, 1_000_000))
    drain(world)


def check(world: World) -> Counter[str]:
    """Check everything that must hold at rest."""
    ends = check_counts(world.watch)
    check_fold(world.watch)
    check_captured(world.watch)
    check_stores(world.watch, apart(world.watch))
    return ends


def repair(world: World) -> None:
    """Have the verifier repair the differences that dead letters left; check that nothing differs afterwards."""
    for last in (False, True):
        for ports in world.collections.values():
            found = differing(world, ports, repaired=not last)
            left = [one for one in found if f"{ports.name}/{one.id}" not in unembeddable(world.watch)]
            if last and left:
                raise Violation(f"6: after the repair: {left[0]}")
        drain(world)
    check_stores(world.watch, unembeddable(world.watch))


def recover(world: World) -> None:
    """Repair twice what was lost or damaged; check that both stores are then equal, and stay so by themselves."""
    for legacy in world.legacy.values():
        legacy.trigger = trigger_of("none")
    rows = {name: dict(legacy.stored) for name, legacy in world.legacy.items()}
    for _ in range(2):
        for name in world.collections:
            repair_all(world, name)
        drain(world)
    if rows != {name: legacy.stored for name, legacy in world.legacy.items()}:
        raise Violation("6: a repair changed the table")
    check_stores(world.watch, unembeddable(world.watch))
    live_on(world)


def repair_all(world: World, name: str) -> None:
    """Repair a collection as `crossfade verify --repair` does at rest: first the differences, then the ledger."""
    stores = world.stores(name)
    ends_of = world.ends_of(name)
    publisher = DifferencePublisher(stores, world.bus, world.ctx, repair=True, ends_of=ends_of)
    ids = sorted({*world.legacy[name].stored, *in_qdrant(world.vectors, name)})
    found = list(at_once(look_locked(stores, ids)).differences.values())
    at_once(publisher.publish(found, at_once(waits(stores, [one.id for one in found]))))
    left = at_once(unsound(stores, ends_of, _passed))
    at_once(publisher.refresh(list(left), left))


async def _passed() -> bool:
    return True


def live_on(world: World) -> None:
    """Have the application and a producer change every document once more; check that no harm hides a change."""
    for at, document in enumerate(DOCUMENTS):
        world.do(act.Write(((document, act.Body(f"written {at}")),)))
    drain(world)
    check_stores(world.watch, set())
    for at, document in enumerate(DOCUMENTS):
        world.do(act.Submit(document, act.Body(f"submitted {at}") if at % 3 else None))
    drain(world)
    check_stores(world.watch, set())
    for at, document in enumerate(DOCUMENTS):
        name, _, document_id = document.partition("/")
        row = world.legacy[name].stored.get(document_id)
        if (row.content.text["body"] if row else None) != (f"submitted {at}" if at % 3 else None):
            raise Violation(f"1: {document} was submitted after the repair, and the table does not have it")


def differing(world: World, ports: CollectionPorts, *, repaired: bool) -> list[Difference]:
    """Compare every document of a collection as the verifier's recheck does; publish and return the differences."""
    stores = world.stores(ports.name)
    ids = sorted({*world.legacy[ports.name].stored, *in_qdrant(ports.vectors, ports.name)})
    found = list(at_once(look_locked(stores, ids)).differences.values())
    at_once(DifferencePublisher(stores, world.bus, world.ctx, repair=repaired).publish(found, {}))
    return found
