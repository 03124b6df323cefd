"""The gates: what must be measured before a collection enters a phase. Data, and one pure function for each gate.

A gate passes only on a measurement. One without data, with too little of it, or whose measurement did not answer is
*inconclusive*, which is not a pass. The thresholds are `GateLimits`, in the configuration of the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from domain.rollout.confidence import BoundedMean
from domain.rollout.traffic import Traffic
from schemas.rollout import GateResult, Phase, PhaseChanged, Verdict
from schemas.settings import GateLimits, InitialLoad
from schemas.tasks import BackfillState, ProofState

# Within this time of a change every worker follows the new phase. Changes of that time may be missing in Qdrant, so a
# proof must be younger.
FOLLOWED_MS = 5_000
MeasuredValue = float | str | None
Measured = dict[str, MeasuredValue]
GateName = Literal["capture", "backfill", "proof", "lag", "comparisons", "qdrant_errors", "qdrant_latency"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a collection at one moment; None is what could not be read, as `unanswered` says by part.

    `quarantine` and `not_captured` are messages, empty if all is well. `lags` are, by role, the messages that wait and
    the age of the oldest in seconds. `traffic` begins with the present phase.
    """

    now_ms: int
    state: PhaseChanged
    limits: GateLimits
    initial_load: InitialLoad
    quarantine: str | None = None
    not_captured: str | None = None
    backfill: BackfillState | None = None
    proof: ProofState | None = None
    lags: Mapping[str, tuple[int, float | None]] | None = None
    traffic: Traffic | None = None
    unanswered: Mapping[str, str] = field(default_factory=dict)


Gate = Callable[[Evidence], GateResult]


def judge(phases: tuple[Phase, ...], evidence: Evidence) -> tuple[GateResult, ...]:
    """Return the verdict of every gate on the way through these phases, each gate once."""
    names = dict.fromkeys(name for phase in phases for name in ENTRY[phase])
    return tuple(GATES[name](evidence) for name in names)


def _capture(evidence: Evidence) -> GateResult:
    if evidence.quarantine:
        return _result("capture", "failed", f"quarantined: {evidence.quarantine}")
    if evidence.not_captured:
        return _result("capture", "failed", evidence.not_captured)
    if evidence.quarantine is None:
        return _result("capture", "inconclusive", _why(evidence, "database"))
    if evidence.not_captured is None:
        return _result("capture", "inconclusive", _why(evidence, "capture"))
    return _result("capture", "passed", "changes of the table are captured, and nothing is quarantined")


def _backfill(evidence: Evidence) -> GateResult:
    state, since = evidence.backfill, evidence.state.writes_qdrant_since_ms
    if evidence.initial_load == "snapshot":
        return _result("backfill", "passed", "capture's snapshot brings the rows; the proof says whether it did")
    if "database" in evidence.unanswered:
        return _result("backfill", "inconclusive", _why(evidence, "database"))
    if state is None:
        return _result("backfill", "failed", f"there was none: crossfade backfill {evidence.state.collection}")
    if state.state != "done":
        return _result("backfill", "failed", f"it is {state.state}")
    proved = _proof(evidence).verdict == "passed"
    if not proved and (since is None or state.started_at_ms < since):
        again = f"crossfade backfill {evidence.state.collection} --restart"
        return _result("backfill", "failed", f"Qdrant was not written for a time after it began: {again}")
    return _result("backfill", "passed", f"{state.rows:,} rows", samples=state.rows)


def _proof(evidence: Evidence) -> GateResult:
    proof, limit_s = evidence.proof, evidence.limits.proof_max_age_s
    if "database" in evidence.unanswered:
        return _result("proof", "inconclusive", _why(evidence, "database"))
    if proof is None or proof.oldest_at_ms is None:
        return _result("proof", "inconclusive", f"there is no whole one: crossfade verify {evidence.state.collection}")
    age_s = max(0.0, (evidence.now_ms - proof.oldest_at_ms) / 1000)
    measured: Measured = {"value": round(age_s, 1), "limit": limit_s, "unit": "s", "samples": proof.rows}
    if proof.verdict == "different" or proof.differences:
        count = sum(proof.differences.values())
        return _result("proof", "failed", f"the stores differ in {count:,} documents", **measured)
    doubt = _doubt(evidence, proof.verdict, proof.oldest_at_ms)
    if doubt is None and age_s > limit_s:
        doubt = "it is too old: prove again"
    if doubt is not None:
        return _result("proof", "inconclusive", doubt, **measured)
    return _result("proof", "passed", f"equal, {proof.rows:,} rows", **measured)


def _doubt(evidence: Evidence, verdict: str, oldest_at_ms: int) -> str | None:
    since = evidence.state.writes_qdrant_since_ms
    if verdict != "equal":
        return f"its verdict is {verdict}"
    if since is None or oldest_at_ms < since + FOLLOWED_MS:
        return "it is older than the writes to Qdrant: prove again"
    return None


def _lag(evidence: Evidence) -> GateResult:
    limit_s = evidence.limits.lag_max_s
    if evidence.lags is None:
        return _result("lag", "inconclusive", _why(evidence, "kafka"), limit=limit_s, unit="s")
    if not evidence.lags:
        return _result("lag", "inconclusive", "no role has read anything", limit=limit_s, unit="s")
    unknown = [role for role, (messages, age) in evidence.lags.items() if messages and age is None]
    role, (messages, age_s) = max(evidence.lags.items(), key=lambda lag: lag[1][1] or 0.0)
    measured: Measured = {"value": round(age_s or 0.0, 1), "limit": limit_s, "unit": "s", "samples": messages}
    if (age_s or 0.0) > limit_s:
        return _result("lag", "failed", f"{role} is behind", **measured)
    if unknown:
        return _result("lag", "inconclusive", f"the age of what waits for {', '.join(unknown)} is unknown", **measured)
    return _result("lag", "passed", "every role keeps up", **measured)


def _qdrant_errors(evidence: Evidence) -> GateResult:
    limits, traffic = evidence.limits, evidence.traffic
    if traffic is None:
        return _result("qdrant_errors", "inconclusive", _why(evidence, "traffic"), limit=limits.error_rate)
    return _share("qdrant_errors", traffic.sides["qdrant"].failed, limits.error_rate, limits, "failed")


def _qdrant_latency(evidence: Evidence) -> GateResult:
    limits, traffic = evidence.limits, evidence.traffic
    if traffic is None:
        return _result("qdrant_latency", "inconclusive", _why(evidence, "traffic"), limit=limits.slow_share)
    by_side = {name: side.latencies.quantile_ms(0.95) for name, side in traffic.sides.items()}
    shown = ", ".join(f"{name} {p95:.0f} ms" for name, p95 in by_side.items() if p95 is not None)
    found = _share(
        "qdrant_latency",
        traffic.sides["qdrant"].slow,
        limits.slow_share,
        limits,
        f"took longer than {limits.p95_ms:g} ms",
    )
    return found.model_copy(update={"message": f"{found.message}; p95: {shown}" if shown else found.message})


def _comparisons(evidence: Evidence) -> GateResult:
    limits, traffic = evidence.limits, evidence.traffic
    if traffic is None:
        return _result("comparisons", "inconclusive", _why(evidence, "traffic"), limit=limits.unequal_rate)
    seen = traffic.comparisons
    if seen.unequal.mean is None and seen.failed:
        message = f"all {seen.failed} comparisons failed: the other side did not answer"
        return _result("comparisons", "inconclusive", message, limit=limits.unequal_rate, samples=0)
    found = _share("comparisons", seen.unequal, limits.unequal_rate, limits, "name a document that one store lacks")
    parts = [found.message]
    if seen.overlap.mean is not None:
        parts.append(f"overlap {seen.overlap.mean:.2f}")
    if seen.noise.mean is not None:
        parts.append(f"of an answer with itself {seen.noise.mean:.2f}")
    return found.model_copy(update={"message": "; ".join(parts)})


def _share(gate: GateName, mean: BoundedMean, limit: float, limits: GateLimits, what: str) -> GateResult:
    """Judge that the share of something bad is at most `limit`."""
    if mean.mean is None:
        return _result(gate, "inconclusive", "no question was asked of it in this phase", limit=limit, samples=0)
    measured: Measured = {
        "value": round(mean.mean, 6),
        "low": round(mean.low, 6),
        "high": round(mean.high, 6),
        "limit": limit,
        "samples": mean.count,
    }
    text, verdict = f"{100 * mean.mean:.2f} % {what}", share_verdict(mean, limit, limits.min_samples)
    if verdict == "inconclusive":
        few = mean.count < limits.min_samples
        text += f"; {limits.min_samples} samples are needed" if few else f"; it may still be {100 * mean.high:.2f} %"
    return _result(gate, verdict, text, **measured)


def share_verdict(mean: BoundedMean, limit: float, least: int) -> Verdict:
    """Return whether a share is known to be at most a limit, or known to be above it. To pass needs `least` samples."""
    if mean.low > limit:
        return "failed"
    return "passed" if mean.count >= least and mean.high <= limit else "inconclusive"


def _result(gate: GateName, verdict: Verdict, message: str, **measured: MeasuredValue) -> GateResult:
    return GateResult.model_validate({"gate": gate, "verdict": verdict, "message": message, **measured})


def _why(evidence: Evidence, part: str) -> str:
    return evidence.unanswered.get(part, f"{part}: nothing is known")


GATES: Mapping[GateName, Gate] = {
    "capture": _capture,
    "backfill": _backfill,
    "proof": _proof,
    "lag": _lag,
    "comparisons": _comparisons,
    "qdrant_errors": _qdrant_errors,
    "qdrant_latency": _qdrant_latency,
}
_EQUAL: tuple[GateName, ...] = ("capture", "backfill", "proof", "lag")
_ANSWERS_WELL: tuple[GateName, ...] = (*_EQUAL, "comparisons", "qdrant_errors", "qdrant_latency")
ENTRY: Mapping[Phase, tuple[GateName, ...]] = {
    "off": (),
    "dual_write": ("capture",),
    "backfill": ("capture",),
    "shadow": _EQUAL,
    "canary_1": _ANSWERS_WELL,
    "canary_5": _ANSWERS_WELL,
    "canary_25": _ANSWERS_WELL,
    "canary_50": _ANSWERS_WELL,
    "primary": _ANSWERS_WELL,
}
"""The gates of each phase: a collection enters it if all of them pass."""
