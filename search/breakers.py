"""The circuit breakers of the search backends, in this process. When one opens and closes is decided in `domain`."""

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
        """Note a state."""
        ...


def _unreported(scope: Scope, name: str, state: State, *, collection: str = "", reason: str = "") -> None:
    """Take a state and publish nothing."""


@dataclass(slots=True)
class Breakers:
    """The circuit breaker of each backend of each collection, in this process; `report` gets each change of state."""

    routing: Routing
    report: StateListener = _unreported
    states: dict[tuple[str, Backend], Breaker] = field(default_factory=dict)

    def of(self, collection: str, backend: Backend) -> Breaker:
        """Return a breaker's state, closed at first."""
        fresh = Breaker(self.routing.breaker_failures, self.routing.breaker_cooldown_s)
        return self.states.get((collection, backend), fresh)

    def begin(self, collection: str, backend: Backend) -> bool:
        """Say whether a call is let through, and count it as begun; `end` must follow."""
        now = time.monotonic()
        breaker = self.of(collection, backend)
        if not breaker.allows(now):
            return False
        self._moved(collection, backend, breaker.started(now))
        return True

    def end(self, collection: str, backend: Backend, says: Literal["well", "ill", "nothing"]) -> None:
        """Note what an ended call says of its backend."""
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
        """Say of each backend whether a call would be let through now."""
        now = time.monotonic()
        backends: tuple[Backend, ...] = ("legacy", "qdrant")
        return {backend: self.of(collection, backend).allows(now) for backend in backends}
