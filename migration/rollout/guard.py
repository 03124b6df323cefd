"""Runs the guards of the collections whose users get answers of Qdrant, and commands the rollback when one trips.

Every conductor's process runs them. A command takes effect on its revision only, so the first one wins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from connectors.errors import CrossfadeError
from connectors.ports import Bus
from domain.rollout.gates import Evidence
from domain.rollout.guards import LEAST, Watch, breaches_of_facts, breaches_of_questions
from domain.rollout.phases import PHASES
from migration.context import HandlerContext
from migration.rollout.evidence import Examiner
from migration.rollout.states import RolloutStates
from migration.rollout.traffic import TrafficView
from schemas.rollout import BY_CHARACTERS, REASON_CHARACTERS, GateResult, PhaseChanged, RolloutCommanded
from schemas.settings import Collection
from topics.catalogue import ROLLOUT_COMMANDS

SOURCE = "crossfade/guard"
LOOK_S = 1.0
FACTS_S = 3.0
# A reading takes up to about 10 s for each part that does not answer.
_FACTS_KEPT_MS = 30_000
# Where few questions are asked, the guards look back over so many windows.
_WINDOWS = 12
# A command that was lost is repeated.
_AGAIN_MS = 10_000
log = logging.getLogger("crossfade.rollout")


class GuardRunner:
    """Looks at each guarded collection every second; at its databases and brokers every three."""

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
        self._watches: dict[str, tuple[int, tuple[Watch, Watch]]] = {}
        self._sent: dict[tuple[str, int], int] = {}

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
                    except Exception:  # no error may end the guards of all collections
                        log.exception("the guards of %s cannot act now", state.collection)
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
        limits, window_ms = self._collections[name].gates, round(guards.window_s * 1000)
        traffic = self._traffic.of(name)
        recent = (
            [] if traffic is None else traffic.recent_since(now_ms - window_ms, LEAST, now_ms - _WINDOWS * window_ms)
        )
        # A fact must be read twice: a breach of facts lasts longer than the time between two readings.
        found = (
            (breaches_of_questions(limits, recent), guards.hold_s),
            (self._breaches_of_facts(state, now_ms), max(guards.hold_s, FACTS_S + LOOK_S)),
        )
        had = self._watches.get(name)
        watches = had[1] if had is not None and had[0] == state.revision else (Watch(), Watch())
        watches = (watches[0].after(bool(found[0][0]), now_ms), watches[1].after(bool(found[1][0]), now_ms))
        self._watches[name] = (state.revision, watches)
        for (breaches, hold_s), watch in zip(found, watches, strict=True):
            if watch.trips(hold_s, now_ms):
                await self._go_back(state, breaches, watch.since_ms or now_ms, now_ms)
                return

    def _breaches_of_facts(self, state: PhaseChanged, now_ms: int) -> tuple[GateResult, ...]:
        facts = self._facts.get(state.collection)
        if facts is None or facts.state.revision != state.revision or now_ms - facts.now_ms > _FACTS_KEPT_MS:
            return ()
        return breaches_of_facts(facts)

    async def _go_back(self, state: PhaseChanged, found: tuple[GateResult, ...], since_ms: int, now_ms: int) -> None:
        name, ctx = state.collection, self._ctx()
        if now_ms - self._sent.get((name, state.revision), -_AGAIN_MS) < _AGAIN_MS:
            return  # it is on its way, and the phase follows
        command_id = f"guard/{name}/{state.revision}/{since_ms}/{now_ms // _AGAIN_MS}"
        command = RolloutCommanded(
            id=command_id,
            collection=name,
            action="rollback",
            expected_revision=state.revision,
            by=f"guard: {', '.join(breach.gate for breach in found)}"[:BY_CHARACTERS],
            reason="; ".join(breach.message for breach in found)[:REASON_CHARACTERS],
            evidence=found,
            guard=True,
        )
        record = ctx.emit(command, ROLLOUT_COMMANDS, name, event_id=command_id, source=SOURCE)
        await self._bus.publish([record])
        self._sent = {(name, state.revision): now_ms, **{k: at for k, at in self._sent.items() if k[0] != name}}
        log.error("%s goes back: %s", name, command.reason)

    async def _read_facts(self) -> None:
        while True:
            for state in self._guarded():
                try:
                    self._facts[state.collection] = await self._examiner.facts(state)
                except Exception:  # the guards on questions go on
                    self._facts.pop(state.collection, None)
                    log.exception("the facts of %s cannot be read", state.collection)
            await asyncio.sleep(FACTS_S)
