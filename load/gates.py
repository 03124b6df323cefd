"""Simulated canaries: how often a gate that is looked at after every question is wrong, and how often it is right."""

from __future__ import annotations

import numpy as np

from domain.rollout.confidence import BoundedMean
from domain.rollout.gates import share_verdict
from load.figures import Figure
from schemas.rollout import Verdict
from schemas.settings import GateLimits

_CANARIES = 1000
_QUESTIONS = 2000
_LIMIT = 0.05
_LOSS = 2.0


def simulated_gates(canaries: int = _CANARIES) -> list[Figure]:
    """Simulate canaries whose share of bad answers is at the limit of the gate, and at twice the limit.

    A canary at the limit that passes at any look is a false promotion. One at twice the limit must be found failed.
    """
    limits, rng = GateLimits(error_rate=_LIMIT), np.random.default_rng(1)
    promoted = sum(_verdict(rng, _LIMIT, limits, "passed") for _ in range(canaries))
    detected = sum(_verdict(rng, _LOSS * _LIMIT, limits, "failed") for _ in range(canaries))
    details: dict[str, object] = {"canaries": canaries, "questions": _QUESTIONS, "limit": _LIMIT}
    return [
        Figure("false_promotions", round(100 * promoted / canaries, 2), "%", details=details),
        Figure(
            "true_detections", round(100 * detected / canaries, 2), "%", details={**details, "share": _LOSS * _LIMIT}
        ),
    ]


def _verdict(rng: np.random.Generator, share: float, limits: GateLimits, wanted: Verdict) -> bool:
    """Return whether a canary gets the wanted verdict at any of its looks."""
    mean = BoundedMean(alpha=1 - limits.confidence)
    for bad in rng.random(_QUESTIONS) < share:
        mean.add(float(bad))
        if share_verdict(mean, limits.error_rate, limits.min_samples) == wanted:
            return True
    return False
