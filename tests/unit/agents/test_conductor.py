"""The conductor: each command is decided once, with the state that it brings about, whatever fails in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from agents.batch import Message
from agents.conductor import begin, conduct, keep_copy
from connectors.errors import StoreUnavailable, TransientError
from migration.rollout.journal import Journal
from migration.state import CollectionState
from schemas.cloudevents import encode
from schemas.records import Outgoing, Received
from schemas.rollout import Action, GateResult, Phase, PhaseChanged, RolloutCommanded, RolloutDecided
from tests.unit.agents.parts import NAME, NOW, Crash, World
from topics.catalogue import ROLLOUT_COMMANDS, ROLLOUT_DECIDED, ROLLOUT_PHASES


class Exclusive:
    """A transactional bus over the recorded bus of a world: the one that took over last may publish."""

    owner: dict[int, Exclusive] = {}

    def __init__(self, world: World) -> None:
        self.world = world

    async def take_over(self) -> None:
        Exclusive.owner[id(self.world)] = self

    async def publish(self, records: Sequence[Outgoing]) -> None:
        if Exclusive.owner.get(id(self.world)) is not self:
            raise TransientError("another publisher has taken over")
        await self.world.bus.publish(records)


class Desk:
    """A conductor over a world. `verdict` is what its gates come to."""

    def __init__(self, world: World) -> None:
        self.world, self.verdict, self.judged = world, "passed", list[tuple[Phase, ...]]()
        self.journal = Journal(Exclusive(world), self._read)

    async def _read(self, topic: str) -> AsyncIterator[Received]:
        for record in self.world.bus.inner.records(topic):
            yield record

    async def judge(self, _: PhaseChanged, phases: tuple[Phase, ...]) -> tuple[GateResult, ...]:
        self.judged.append(phases)
        return (GateResult(gate="proof", verdict=cast(Any, self.verdict)),)

    async def take(self, *messages: Message) -> list[Any]:
        world = self.world
        return await conduct(
            list(messages), collections=world.collections, journal=self.journal, judge=self.judge, ctx=world.ctx
        )


def commanded(world: World, action: Action = "promote", *, at_ms: int = NOW - 5, **other: Any) -> Message:
    given = {"id": "c1", "collection": NAME, "action": action, "expected_revision": 1, "by": "ann"} | other
    event = RolloutCommanded(**given)
    record = encode(event, topic=ROLLOUT_COMMANDS, key=NAME, event_id=event.id, source="test", time_ms=NOW)
    return world.bus.add(record, timestamp_ms=at_ms)


def phases(world: World) -> list[tuple[Phase, int]]:
    return [(event.phase, event.revision) for event in world.bus.events(ROLLOUT_PHASES, PhaseChanged)]


def outcomes(world: World) -> list[str]:
    return [event.outcome for event in world.bus.events(ROLLOUT_DECIDED, RolloutDecided)]


async def test_a_promotion_publishes_its_decision_and_the_phase_together() -> None:
    world = World()
    desk = Desk(world)
    assert await desk.take(commanded(world)) == []
    assert (phases(world), outcomes(world)) == ([("dual_write", 1), ("backfill", 2)], ["applied"])
    assert f"publish {ROLLOUT_PHASES} {ROLLOUT_DECIDED}" in world.steps()
    assert desk.judged == [("backfill",)]


@pytest.mark.parametrize(("verdict", "outcome"), [("failed", "gate_failed"), ("inconclusive", "gate_inconclusive")])
async def test_a_gate_that_does_not_pass_keeps_the_phase(verdict: str, outcome: str) -> None:
    world = World()
    desk = Desk(world)
    desk.verdict = verdict
    await desk.take(commanded(world))
    assert (phases(world), outcomes(world)) == ([("dual_write", 1)], [outcome])


async def test_a_command_that_arrives_twice_is_decided_once() -> None:
    world = World()
    message = commanded(world)
    await Desk(world).take(message, message)
    await Desk(world).take(message)  # after a restart
    assert (phases(world), outcomes(world)) == ([("dual_write", 1), ("backfill", 2)], ["applied"])


async def test_a_refused_command_stays_refused_when_it_arrives_again() -> None:
    world = World()
    desk, message = Desk(world), commanded(world)
    desk.verdict = "failed"
    await desk.take(message)
    await Desk(world).take(message)
    assert (phases(world), outcomes(world)) == ([("dual_write", 1)], ["gate_failed"])


@pytest.mark.parametrize("after", [False, True])
async def test_a_conductor_that_dies_leaves_all_or_nothing(after: bool) -> None:
    world = World()
    message, step = commanded(world), f"publish {ROLLOUT_PHASES} {ROLLOUT_DECIDED}"
    world.journal.fail(step, Crash(), after=after)
    with pytest.raises(Crash):
        await Desk(world).take(message)
    assert outcomes(world) == (["applied"] if after else [])
    await Desk(world).take(message)
    assert (phases(world), outcomes(world)) == ([("dual_write", 1), ("backfill", 2)], ["applied"])


async def test_a_conductor_that_lost_its_place_cannot_publish_and_reads_again() -> None:
    world = World()
    first, second = Desk(world), Desk(world)
    await first.journal.state(NAME)
    await second.take(commanded(world))
    late = commanded(world, "rollback", id="c2")
    with pytest.raises(TransientError):
        await first.take(late)
    await first.take(late)  # the runner tries again
    assert (phases(world), outcomes(world)) == ([("dual_write", 1), ("backfill", 2)], ["applied", "conflict"])


async def test_of_two_operators_one_gets_a_conflict() -> None:
    world = World()
    await Desk(world).take(commanded(world), commanded(world, id="c2", by="bob"))
    assert (phases(world), outcomes(world)) == ([("dual_write", 1), ("backfill", 2)], ["applied", "conflict"])


async def test_a_command_that_waited_for_a_conductor_is_refused_without_judging_gates() -> None:
    world = World()
    desk = Desk(world)
    await desk.take(commanded(world, at_ms=NOW - 60_001))
    assert (outcomes(world), desk.judged) == (["refused"], [])


async def test_a_guards_command_does_not_expire_since_its_revision_protects_it() -> None:
    world = World(phase="primary")
    await Desk(world).take(commanded(world, "rollback", guard=True, at_ms=NOW - 3_600_000))
    assert phases(world)[-1] == ("shadow", 2)


async def test_a_command_that_expires_while_its_gates_are_judged_changes_nothing() -> None:
    world = World()
    desk = Desk(world)
    late = replace(world.ctx, clock=lambda: NOW + 120_000 if desk.judged else NOW)
    await conduct([commanded(world)], collections=world.collections, journal=desk.journal, judge=desk.judge, ctx=late)
    assert (outcomes(world), phases(world)) == (["refused"], [("dual_write", 1)])


async def test_a_collection_that_is_not_open_goes_back_but_not_forth() -> None:
    world = World(phase="canary_50")
    desk = Desk(world)
    await begin([world.ports], desk.journal, world.ctx)
    messages = [commanded(world), commanded(world, "rollback", id="c2")]
    await conduct(messages, collections={}, journal=desk.journal, judge=desk.judge, ctx=world.ctx)
    assert (outcomes(world), phases(world)[-1]) == (["gate_inconclusive", "applied"], ("shadow", 2))


async def test_a_copy_that_cannot_be_read_begins_nothing() -> None:
    world = World()
    await CollectionState(world.ports.ledger, NAME).set_rollout("{")
    assert await begin([world.ports], Desk(world).journal, world.ctx) == set()
    assert phases(world) == []


async def test_a_topic_that_is_lost_under_a_conductor_is_restored() -> None:
    world = World()
    desk = Desk(world)
    await desk.take(commanded(world))
    world.bus.inner._logs[ROLLOUT_PHASES] = [[]]
    await desk.journal.check()
    await begin([world.ports], desk.journal, world.ctx)
    assert phases(world) == [("backfill", 2)]


async def test_an_older_state_does_not_replace_a_newer_copy() -> None:
    world = World()
    await Desk(world).take(commanded(world))
    kept = await CollectionState(world.ports.ledger, NAME).rollout()
    first = world.bus.events(ROLLOUT_PHASES, PhaseChanged)[0]
    await keep_copy(world.ports, first)
    assert await CollectionState(world.ports.ledger, NAME).rollout() == kept


async def test_a_wrong_command_is_a_failure_and_the_next_is_decided() -> None:
    world = World()
    wrong = world.bus.add(Outgoing(ROLLOUT_COMMANDS, b"docs", b"{}"))
    unknown = commanded(world, collection="nothing")
    failures = await Desk(world).take(wrong, unknown, commanded(world, id="c2"))
    assert [failure.message for failure in failures] == [wrong, unknown]
    assert outcomes(world) == ["applied"]


async def test_a_rollback_does_not_wait_for_a_database_that_is_away() -> None:
    world = World(phase="primary")
    desk = Desk(world)
    await begin([world.ports], desk.journal, world.ctx)
    world.journal.fail("ledger.identity", StoreUnavailable("down"))
    world.journal.fail("ledger.set_identity", StoreUnavailable("down"))
    await desk.take(commanded(world, "rollback"))
    assert phases(world)[-1] == ("shadow", 2)


async def test_a_rollout_begins_as_configured_and_only_once() -> None:
    world = World(phase="off")
    for _ in range(2):
        await begin([world.ports], Desk(world).journal, world.ctx)
    assert phases(world) == [("off", 1)]


async def test_a_lost_topic_is_restored_from_the_copy_in_the_database() -> None:
    world = World()
    await Desk(world).take(commanded(world))
    fresh = World()
    fresh.legacy.identities = world.legacy.identities
    await begin([fresh.ports], Desk(fresh).journal, fresh.ctx)
    assert phases(fresh) == [("backfill", 2)]


async def test_a_copy_that_is_behind_is_written_again() -> None:
    world = World()
    world.journal.fail("ledger.set_identity", StoreUnavailable("down"))
    await begin([world.ports], Desk(world).journal, world.ctx)
    kept = CollectionState(world.ports.ledger, NAME)
    assert await kept.rollout() is None
    await begin([world.ports], Desk(world).journal, world.ctx)
    assert phases(world) == [("dual_write", 1)]
    assert await kept.rollout() is not None


async def test_the_copy_fits_whatever_the_reason() -> None:
    world = World()
    await Desk(world).take(commanded(world, "abort", reason='"' * 1000, by="\\" * 200))
    text = await CollectionState(world.ports.ledger, NAME).rollout()
    assert text is not None
    assert len(text) <= 1000


async def test_a_rollout_that_moved_on_is_not_begun_again() -> None:
    world = World()
    desk = Desk(world)
    slow = asyncio.Event()
    inner = world.ports.ledger.identity

    async def identity(name: str) -> str | None:
        found = await inner(name)
        await slow.wait()
        return found

    late = replace(world.ports, ledger=cast(Any, _Over(world.ports.ledger, identity)))
    beginning = asyncio.create_task(begin([late], desk.journal, world.ctx))
    await asyncio.sleep(0)
    await desk.take(commanded(world))
    slow.set()
    with pytest.raises(TransientError):
        await beginning
    assert phases(world) == [("dual_write", 1), ("backfill", 2)]


class _Over:
    """A ledger with another `identity`."""

    def __init__(self, inner: Any, identity: Any) -> None:
        self._inner, self.identity = inner, identity

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
