"""The circuit breakers of the search backends, in this process. `domain` decides when one opens and closes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from domain.breaker import Breaker
from schemas.queries import Backend
from schemas.service import Scope, State
from schemas.settings import Routing


class StateListener(Protocol):
    """Takes the state of a circuit, as `agents.status_reporter` does."""

    def __call__(self, scope: Scope, name: str, state: State, *, collection: str = "", reason: str = "") -> None:
        """Record a state."""
        ...


def _unreported(scope: Scope, name: str, state: State, *, collection: str = "", reason: str = "") -> None:
    """Ignore a state."""


@dataclass(slots=True)
class Breakers:
    """The circuit breaker of each backend of each collection, in this process; `report` receives each new state."""

    routing: Routing
    report: StateListener = _unreported
    states: dict[tuple[str, Backend], Breaker] = field(default_factory=dict)

    def of(self, collection: str, backend: Backend) -> Breaker:
        """Return a backend's breaker, which is closed at first."""
        fresh = Breaker(self.routing.breaker_failures, self.routing.breaker_cooldown_s)
        return self.states.get((collection, backend), fresh)

    def begin(self, collection: str, backend: Backend) -> bool:
        """Return whether a call is let through, and count it as begun; `end` must follow."""
        now = time.monotonic()
        breaker = self.of(collection, backend)
        if not breaker.allows(now):
            return False
        self._moved(collection, backend, breaker.started(now))
        return True

    def end(self, collection: str, backend: Backend, says: Literal["well", "ill", "nothing"]) -> None:
        """Record what a finished call says about its backend."""
        breaker = self.of(collection, backend)
        after = (
            breaker.succeeded()
            if says == "well"
            else breaker.failed_at(time.monotonic())
            if says == "ill"
            else breaker.released()
        )
        self._moved(collection, backend, after)

    def _moved(self, collection: str, backend: Backend, after: Breaker) -> None:
        self.states[collection, backend] = after
        reason = f"{after.failed} failures in a row" if after.failed else ""
        self.report("backend", backend, after.state(time.monotonic()), collection=collection, reason=reason)

    def available(self, collection: str) -> Mapping[Backend, bool]:
        """Return for each backend whether a call would be let through now."""
        now = time.monotonic()
        backends: tuple[Backend, ...] = ("legacy", "qdrant")
        return {backend: self.of(collection, backend).allows(now) for backend in backends}
