"""Events of a question: asked, routed and answered. Data only, no behaviour."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.content import Scalar
from schemas.documents import CollectionName, DocumentId, Event, Tenant
from schemas.rollout import Phase

Backend = Literal["legacy", "qdrant"]


class QueryAsked(Event):
    """A question to a collection. `route` forces a backend; `deadline_ms` is relative to the time of the event.

    `session` names a user or a visit: in a canary, all questions of a session of a tenant go to the same side. Without
    it, the same text does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    ce_type: ClassVar[str] = "crossfade.query.asked.v1"

    id: Annotated[str, Field(min_length=1, max_length=128)]
    collection: CollectionName
    tenant: Tenant = "default"
    text: Annotated[str, Field(min_length=1, max_length=8192)]
    limit: Annotated[int, Field(ge=1, le=200)] = 10
    filter: dict[str, Scalar] = {}
    route: Backend | None = None
    deadline_ms: Annotated[int, Field(ge=1, le=600_000)] | None = None
    session: Annotated[str, Field(min_length=1, max_length=256)] | None = None


class Hit(BaseModel):
    """One found chunk, at most one per document. A higher `score` is better; compare scores of one backend only."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    document_id: DocumentId
    chunk: int
    score: float
    text: str
    metadata: dict[str, Scalar] = {}
    version: int | None = None


class QueryAnswered(Event):
    """The answer to a question. `error` is set, and `hits` empty, if no backend could answer.

    `timings_ms` has the duration of each backend's attempt, embedding included, of `embed` alone, and of the `total`.
    `refused`: no backend was asked, because the question itself is invalid; it became a dead letter.
    """

    ce_type: ClassVar[str] = "crossfade.query.answered.v1"

    query_id: str
    collection: CollectionName | None = None
    hits: tuple[Hit, ...]
    served_by: Backend | None
    degraded: bool = False
    error: str | None = None
    refused: bool = False
    timings_ms: dict[str, float] = {}


class Alternative(BaseModel):
    """A backend that was considered: its score (higher is better) and, if it was not chosen, the reason."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    backend: Backend
    score: float
    why_not: str | None = None


AttemptOutcome = Literal["answered", "failed", "timed_out", "refused", "skipped"]


class Attempt(BaseModel):
    """One backend that was asked: how that ended, and after how long, embedding included.

    `failed` and `timed_out` are the backend's own doing. `refused` is a fault of the question (a filter that it cannot
    use, a deadline that left too little time), and `skipped` means that its circuit was open.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    backend: Backend
    outcome: AttemptOutcome
    ms: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 0.0


class RankedHit(BaseModel):
    """A hit of a compared answer: the document, and its score by the side that found it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    document_id: DocumentId
    score: float


MissingReason = Literal["not_stored", "filtered", "ranked_lower"]


class MissingHit(BaseModel):
    """A document of the answer that the other side did not return: its rank in the answer, from 1, and the reason.

    `not_stored`: the other side does not have it. `filtered`: it has it with another tenant, or with metadata that the
    filter leaves out. `ranked_lower`: it has it, and found others better.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    document_id: DocumentId
    rank: int
    reason: MissingReason


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ShadowCompared(Event):
    """A question that was answered by one side and then asked of the other one, off the hot path.

    `overlap` is the share of the best `limit` documents that both returned, `rbo` their rank-biased overlap, both from
    0 to 1. They are None if the other side did not answer, as `compared` then says. `noise_overlap` and `noise_rbo`
    compare the answer with a second one of the same side, for a share of the questions: what a side differs from itself
    is no finding. `rank_shift` is by how many ranks the documents of both differ, `score_drift` by how much their
    scores, if both sides score alike. `missing` are documents that the other side did not return, `only_there` those of
    the other side that the side that answered does not have.
    """

    ce_type: ClassVar[str] = "crossfade.shadow.compared.v1"

    query_id: str
    collection: CollectionName
    phase: Phase
    tenant: Tenant
    text: str
    limit: int
    answered: Attempt
    compared: Attempt
    overlap: Share | None = None
    rbo: Share | None = None
    rank_shift: float | None = None
    score_drift: float | None = None
    noise_overlap: Share | None = None
    noise_rbo: Share | None = None
    missing: tuple[MissingHit, ...] = ()
    only_there: tuple[MissingHit, ...] = ()
    answer: tuple[RankedHit, ...] = ()
    other: tuple[RankedHit, ...] = ()
    error: str | None = None


class RouteDecided(Event):
    """The route of a question and its reasons, with everything needed to repeat the decision.

    `attempts` are the backends that were asked, in order. If the collection was `quarantined`, Qdrant came last.
    """

    ce_type: ClassVar[str] = "crossfade.route.decided.v1"

    query_id: str
    collection: CollectionName
    chosen: Backend
    alternatives: tuple[Alternative, ...]
    reasons: tuple[str, ...]
    features: dict[str, Scalar]
    rules_version: int
    phase: Phase
    attempts: tuple[Attempt, ...] = ()
    quarantined: bool = False
