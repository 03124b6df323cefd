"""Reads the evidence for the gates of a rollout: from databases, brokers, Kafka Connect and the traffic of questions.

A part that does not answer makes its gates inconclusive, and keeps no other gate from its verdict.
"""

from __future__ import annotations

from collections.abc import Callable

from domain.rollout.gates import Evidence, judge
from migration.observe import Observer
from migration.rollout.traffic import TrafficView
from migration.status import Progress
from schemas.rollout import GateResult, Phase, PhaseChanged
from schemas.settings import Settings

_CAUGHT_UP_S = 10.0


class Examiner:
    """Judges the gates of collections on what is measured now."""

    def __init__(self, settings: Settings, traffic: TrafficView, now_ms: Callable[[], int]) -> None:
        self._settings, self._traffic, self._now_ms = settings, traffic, now_ms

    async def judge(self, state: PhaseChanged, phases: tuple[Phase, ...]) -> tuple[GateResult, ...]:
        """Return the verdict of every gate on the way through these phases."""
        caught_up = await self._traffic.caught_up(_CAUGHT_UP_S)
        return judge(phases, self._evidence(state, await self._look(state), caught_up=caught_up))

    async def facts(self, state: PhaseChanged) -> Evidence:
        """Return what databases, brokers and Kafka Connect report, without waiting for questions."""
        return self._evidence(state, await self._look(state), caught_up=True)

    async def _look(self, state: PhaseChanged) -> Progress:
        observer = Observer(self._settings)
        try:
            (progress,) = await observer.look([state.collection])
        finally:
            await observer.close()
        return progress

    def _evidence(self, state: PhaseChanged, progress: Progress, *, caught_up: bool) -> Evidence:
        collection, unanswered = self._settings.collections[state.collection], dict(progress.unanswered)
        if not caught_up:
            unanswered["traffic"] = "the decisions about questions could not be read to their end in time"
        quarantine = progress.quarantine.message if progress.quarantine else ""
        return Evidence(
            self._now_ms(),
            state,
            collection.gates,
            collection.initial_load,
            quarantine=None if "database" in unanswered else quarantine,
            not_captured=_not_captured(progress),
            backfill=progress.backfill.state if progress.backfill else None,
            proof=progress.proof.state if progress.proof else None,
            lags=None if progress.lags is None else {lag.role: (lag.messages, lag.seconds) for lag in progress.lags},
            traffic=self._traffic.of(state.collection) if caught_up else None,
            unanswered=unanswered,
        )


def _not_captured(progress: Progress) -> str | None:
    """Return why changes of the table are not captured, empty if they are, None if that is not known."""
    if progress.capture is None:
        return None
    if progress.state == "not captured":
        return f"the connector is {progress.capture.state.lower()}: changes of the table do not arrive"
    return ""
