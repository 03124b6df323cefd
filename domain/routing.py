"""Which backend answers a question, and why. Pure: the same inputs give the same decision, so events can be replayed.

Rules version 2: a forced route wins, otherwise the phase's order applies; a canary's order depends on the question's
bucket. A backend with an open circuit comes last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from domain.rollout.phases import PHASES, QDRANT_FIRST
from schemas.content import Scalar
from schemas.queries import Alternative, Backend, QueryAsked
from schemas.rollout import Phase

RULES_VERSION = 2
_BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class Decision:
    """The backends to ask, in order, and the reasons for that order."""

    order: tuple[Backend, ...]
    alternatives: tuple[Alternative, ...]
    reasons: tuple[str, ...]
    features: dict[str, Scalar]
    quarantined: bool = False


def decide(query: QueryAsked, phase: Phase, available: Mapping[Backend, bool]) -> Decision:
    """Return the decision for a question. `available` is, for each backend, whether its circuit lets a call through."""
    rules, bucket = PHASES[phase], bucket_of(query)
    allowed = QDRANT_FIRST if bucket < rules.share else rules.answers
    reasons: list[str] = []
    preferred = list(allowed)
    if query.route is not None:
        reasons.append(f"route {query.route} was asked for")
        preferred = [query.route, *(backend for backend in allowed if backend != query.route)]
    elif 0 < rules.share < 1:
        of = f"{100 * rules.share:g} % of the users" if allowed[0] == "qdrant" else "the others"
        reasons.append(f"phase {phase} answers {of} from {allowed[0]}; bucket {bucket:.4f}")
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


def bucket_of(query: QueryAsked) -> float:
    """Return the bucket of a question, from 0 to 1 in steps of 0.0001: the same for a tenant's session or else text.

    A canary of p % takes the buckets below p/100. So whoever is in a small canary stays in every larger one.
    """
    who = f"{query.tenant}\0{query.session}" if query.session is not None else f"{query.tenant}\0\0{query.text}"
    hashed = int.from_bytes(blake2b(who.encode("utf-8", "surrogatepass"), digest_size=8).digest())
    return hashed % _BUCKETS / _BUCKETS


def features_of(query: QueryAsked) -> dict[str, Scalar]:
    """Return the features that the rules may use, without the text."""
    return {
        "words": len(query.text.split()),
        "characters": len(query.text),
        "filters": len(query.filter),
        "limit": query.limit,
        "forced": query.route,
        "bucket": bucket_of(query),
    }
