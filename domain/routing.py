"""Which backend answers a question, and why. Pure: the same inputs give the same decision, so events can be replayed.

Rules version 1: a forced route wins, otherwise the phase's order applies. A backend with an open circuit comes last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from domain.phases import PHASES
from schemas.content import Scalar
from schemas.queries import Alternative, Backend, Phase, QueryAsked

RULES_VERSION = 1


@dataclass(frozen=True, slots=True)
class Decision:
    """The backends to ask, in order, and the reasons for that order."""

    order: tuple[Backend, ...]
    alternatives: tuple[Alternative, ...]
    reasons: tuple[str, ...]
    features: dict[str, Scalar]


def decide(query: QueryAsked, phase: Phase, available: Mapping[Backend, bool]) -> Decision:
    """Return the decision for a question. `available` is, for each backend, whether its circuit lets a call through."""
    allowed = PHASES[phase].answers
    reasons: list[str] = []
    preferred = list(allowed)
    if query.route is not None:
        reasons.append(f"route {query.route} was asked for")
        preferred = [query.route, *(backend for backend in allowed if backend != query.route)]
    else:
        reasons.append(f"phase {phase} answers from {allowed[0]}")
    order = sorted(preferred, key=lambda backend: not available.get(backend, True))
    if order[0] != preferred[0]:
        reasons.append(f"the circuit of {preferred[0]} is open")
    alternatives = tuple(
        Alternative(
            backend=backend,
            score=float(len(preferred) - preferred.index(backend)) if available.get(backend, True) else 0.0,
            why_not=_why_not(backend, order[0], available),
        )
        for backend in preferred
    )
    return Decision(tuple(order), alternatives, tuple(reasons), features_of(query))


def _why_not(backend: Backend, chosen: Backend, available: Mapping[Backend, bool]) -> str | None:
    if backend == chosen:
        return None
    return "lower in the order of the phase or the request" if available.get(backend, True) else "circuit open"


def features_of(query: QueryAsked) -> dict[str, Scalar]:
    """Return the features that the rules may use, without the text."""
    return {
        "words": len(query.text.split()),
        "characters": len(query.text),
        "filters": len(query.filter),
        "limit": query.limit,
        "forced": query.route,
    }
