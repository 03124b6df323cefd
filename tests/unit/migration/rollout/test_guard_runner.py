"""The guards of a process: they command a rollback when a breach lasts, and again if that was lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from domain.rollout.commands import begun
from domain.rollout.gates import Evidence
from migration.rollout.guard import GuardRunner
from migration.rollout.states import RolloutStates
from migration.rollout.traffic import TrafficView
from schemas.queries import Attempt
from schemas.rollout import RolloutCommanded
from tests.unit.agents.parts import NAME, NOW, World
from tests.unit.domain.rollout.test_gates import proof
from topics.catalogue import ROLLOUT_COMMANDS


class Watched:
    """A collection in primary, and its guards at a time that the test sets."""

    def __init__(self) -> None:
        self.world, self.now_ms = World(phase="primary"), NOW
        self.states = RolloutStates({NAME: begun(NAME, "primary", NOW - 60_000)})
        settings = {NAME: self.world.ports.settings}
        self.traffic = TrafficView("nowhere:1", self.states, settings)
        ctx = replace(self.world.ctx, clock=lambda: self.now_ms)
        self.runner = GuardRunner(
            settings, self.states, self.traffic, cast(Any, None), cast(Any, self.world.bus), lambda: ctx
        )

    def attempts(self, outcome: Any, count: int = 20) -> None:
        traffic = self.traffic.of(NAME)
        assert traffic is not None
        traffic.add([Attempt(backend="qdrant", outcome=outcome)] * count, self.now_ms)

    def facts(self, **changes: Any) -> None:
        limits = self.world.ports.settings.gates
        self.runner._facts[NAME] = Evidence(self.now_ms, self.states.known[NAME], limits, "snapshot", **changes)

    async def look(self, after_s: float) -> list[RolloutCommanded]:
        self.now_ms = NOW + round(after_s * 1000)
        await self.runner._look(self.states.known[NAME])
        return self.world.bus.events(ROLLOUT_COMMANDS, RolloutCommanded)


async def test_a_breach_that_lasts_commands_one_rollback_with_its_evidence() -> None:
    watched = Watched()
    watched.attempts("failed")
    sent = [len(await watched.look(second)) for second in (0, 1, 2, 3)]
    (command,) = await watched.look(3.5)
    assert sent == [0, 0, 1, 1]
    assert (command.action, command.guard, command.expected_revision) == ("rollback", True, 1)
    assert (command.by, [breach.gate for breach in command.evidence]) == ("guard: qdrant_errors", ["qdrant_errors"])


async def test_a_breach_that_passes_commands_nothing() -> None:
    watched = Watched()
    watched.attempts("failed", 5)
    await watched.look(0)
    watched.attempts("answered", 500)
    assert [len(await watched.look(second)) for second in (1, 2, 3)] == [0, 0, 0]


async def test_a_command_that_was_lost_is_repeated_under_another_id() -> None:
    watched = Watched()
    watched.attempts("failed")
    for second in range(3):
        await watched.look(second)
    watched.attempts("failed")
    found = await watched.look(12.5)
    assert len({command.id for command in found}) == len(found) == 2


@pytest.mark.parametrize(("changes", "trips"), [({"proof": proof(differences={"stale": 1})}, True), ({}, False)])
async def test_a_fact_must_be_read_twice(changes: dict[str, Any], trips: bool) -> None:
    watched = Watched()
    watched.facts(**changes)
    assert [len(await watched.look(second)) for second in (0, 1, 2, 3)] == [0, 0, 0, 0]
    watched.facts(**changes)
    assert len(await watched.look(4)) == trips


async def test_a_fact_that_is_old_counts_for_nothing() -> None:
    watched = Watched()
    watched.facts(proof=proof(differences={"stale": 1}))
    await watched.look(0)
    assert await watched.look(31) == []


async def test_another_revision_begins_again() -> None:
    watched = Watched()
    watched.attempts("failed")
    await watched.look(0)
    watched.states.take(watched.states.known[NAME].model_copy(update={"revision": 2, "paused": True}))
    assert await watched.look(2) == []
