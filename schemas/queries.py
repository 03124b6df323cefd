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
    ms: float = 0.0


class RouteDecided(Event):
    """The route of a question and its reasons, with everything needed to repeat the decision.

    `attempts` are the backends that were asked, in order.
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
