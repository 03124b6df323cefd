"""Runs the guards of the collections whose users get answers of Qdrant, and commands the rollback when one trips.

Every conductor's process runs them. They all give the command of a revision the same id, so it is decided once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from connectors.errors import CrossfadeError
from connectors.ports import Bus
from domain.rollout.gates import Evidence
from domain.rollout.guards import Watch, breaches
from domain.rollout.phases import PHASES
from migration.context import HandlerContext
from migration.rollout.evidence import Examiner
from migration.rollout.states import RolloutStates
from migration.rollout.traffic import TrafficView
from schemas.rollout import GateResult, PhaseChanged, RolloutCommanded
from schemas.settings import Collection
from topics.catalogue import ROLLOUT_COMMANDS

SOURCE = "crossfade/guard"
LOOK_S = 1.0
FACTS_S = 5.0
_REASON_CHARACTERS = 1000
log = logging.getLogger("crossfade.rollout")


class GuardRunner:
    """Looks at each guarded collection every second; at its databases and brokers every five seconds."""

    def __init__(
        self,
        collections: Mapping[str, Collection],
        states: RolloutStates,
        traffic: TrafficView,
        examiner: Examiner,
        bus: Bus,
        ctx: Callable[[], HandlerContext],
    ) -> None:
        self._collections, self._states, self._traffic = collections, states, traffic
        self._examiner, self._bus, self._ctx = examiner, bus, ctx
        self._facts: dict[str, Evidence] = {}
        self._watches: dict[str, tuple[int, Watch]] = {}
        self._sent: dict[str, str] = {}

    async def run(self) -> None:
        """Look for ever."""
        reading = asyncio.create_task(self._read_facts())
        try:
            while True:
                for state in self._guarded():
                    try:
                        await self._look(state)
                    except CrossfadeError as error:
                        log.warning("the guards of %s cannot act now: %s", state.collection, error)
                await asyncio.sleep(LOOK_S)
        finally:
            reading.cancel()

    def _guarded(self) -> list[PhaseChanged]:
        return [
            state
            for name, state in list(self._states.known.items())
            if name in self._collections and self._collections[name].guards.enabled and PHASES[state.phase].share
        ]

    async def _look(self, state: PhaseChanged) -> None:
        name, now_ms, guards = state.collection, self._ctx().clock(), self._collections[state.collection].guards
        traffic = self._traffic.of(name)
        facts = self._facts.get(name)
        if facts is None or facts.state.revision != state.revision:
            facts = Evidence(now_ms, state, self._collections[name].gates, self._collections[name].initial_load)
        recent = traffic.recent_since(now_ms - round(guards.window_s * 1000)) if traffic is not None else []
        found = breaches(facts, recent)
        revision, watch = self._watches.get(name, (state.revision, Watch()))
        watch = (watch if revision == state.revision else Watch()).after(bool(found), now_ms)
        self._watches[name] = (state.revision, watch)
        if watch.trips(guards, now_ms):
            await self._go_back(state, found)

    async def _go_back(self, state: PhaseChanged, found: tuple[GateResult, ...]) -> None:
        name, ctx = state.collection, self._ctx()
        command_id = f"guard/{name}/{state.revision}/{state.changed_at_ms}"
        if self._sent.get(name) == command_id:
            return  # it is on its way, and the phase follows
        command = RolloutCommanded(
            id=command_id,
            collection=name,
            action="rollback",
            expected_revision=state.revision,
            by=f"guard: {', '.join(breach.gate for breach in found)}"[:200],
            reason="; ".join(breach.message for breach in found)[:_REASON_CHARACTERS],
            evidence=found,
            guard=True,
        )
        record = ctx.emit(command, ROLLOUT_COMMANDS, name, event_id=command_id, source=SOURCE)
        await self._bus.publish([record])
        self._sent[name] = command_id
        log.error("%s goes back: %s", name, command.reason)

    async def _read_facts(self) -> None:
        while True:
            for state in self._guarded():
                try:
                    self._facts[state.collection] = await self._examiner.facts(state)
                except Exception:  # the guards on questions go on
                    log.exception("the facts of %s cannot be read", state.collection)
            await asyncio.sleep(FACTS_S)
