"""The guards: what sends a collection back by itself, while users get answers of Qdrant.

A guard looks at recent questions only, since a collection that was good for a day may be bad now. It trips on what is
known to be wrong, never on what is not known, and only if that lasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from domain.rollout.confidence import binomial_tail
from domain.rollout.gates import GATES, Evidence, GateName
from domain.rollout.traffic import Recent
from schemas.rollout import GateResult
from schemas.settings import GateLimits

# How unlikely what is seen must be if the limit was kept. A guard looks every second for as long as a migration lasts.
ALPHA = 1e-5
LEAST = 5
_SKIPPED = 0.5
_WATCHED: tuple[GateName, ...] = ("capture", "proof", "lag")


def breaches_of_questions(limits: GateLimits, recent: Sequence[Recent]) -> tuple[GateResult, ...]:
    """Return what is wrong with the recent attempts at Qdrant, nothing if all is well."""
    asked = [one for one in recent if one.outcome != "skipped"]
    answered = [one for one in asked if one.outcome == "answered"]
    found = [
        _share("qdrant_errors", [one.outcome != "answered" for one in asked], limits.error_rate, "failed"),
        _share(
            "qdrant_latency",
            [one.ms > limits.p95_ms for one in answered],
            limits.slow_share,
            f"took longer than {limits.p95_ms:g} ms",
        ),
        _circuit(recent),
    ]
    return tuple(breach for breach in found if breach is not None)


def breaches_of_facts(evidence: Evidence) -> tuple[GateResult, ...]:
    """Return what is wrong with proof, lag and capture, nothing if all is well or not known.

    While the table's database does not answer, nothing is wrong enough to send users there.
    """
    if "database" in evidence.unanswered:
        return ()
    found = [_watched(name, evidence, evidence.limits) for name in _WATCHED]
    return tuple(breach for breach in found if breach is not None)


@dataclass(frozen=True, slots=True)
class Watch:
    """Whether a breach lasts: `since_ms` is when the present one began, None while all is well."""

    since_ms: int | None = None

    def after(self, breached: bool, now_ms: int) -> Watch:
        """Return the watch after a look."""
        if not breached:
            return Watch()
        return self if self.since_ms is not None else replace(self, since_ms=now_ms)

    def trips(self, hold_s: float, now_ms: int) -> bool:
        """Say whether the breach has lasted for long enough."""
        return self.since_ms is not None and now_ms - self.since_ms >= hold_s * 1000


def _share(gate: str, bad: Sequence[bool], limit: float, what: str) -> GateResult | None:
    if len(bad) < LEAST or binomial_tail(len(bad), sum(bad), limit) > ALPHA:
        return None
    value = sum(bad) / len(bad)
    return GateResult(
        gate=gate,
        verdict="failed",
        limit=limit,
        value=round(value, 6),
        samples=len(bad),
        message=f"{100 * value:.1f} % of the recent questions to Qdrant {what}",
    )


def _circuit(recent: Sequence[Recent]) -> GateResult | None:
    skipped = sum(one.outcome == "skipped" for one in recent)
    if len(recent) < LEAST or skipped <= _SKIPPED * len(recent):
        return None
    return GateResult(
        gate="circuit",
        verdict="failed",
        limit=_SKIPPED,
        value=round(skipped / len(recent), 6),
        samples=len(recent),
        message="Qdrant's circuit breaker is open",
    )


def _watched(name: GateName, evidence: Evidence, limits: GateLimits) -> GateResult | None:
    found = GATES[name](evidence)
    if found.verdict == "failed":
        return found
    if name == "proof" and found.value is not None and found.value > limits.proof_max_age_s:
        return found.model_copy(update={"verdict": "failed"})
    return None
