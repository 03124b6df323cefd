"""Events of a question: asked, routed and answered. Data only, no behaviour."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.content import Scalar
from schemas.documents import CollectionName, DocumentId, Event, Tenant

Backend = Literal["legacy", "qdrant"]
Phase = Literal["off", "dual_write", "primary"]


class QueryAsked(Event):
    """A question to a collection. `route` forces a backend; `deadline_ms` is relative to the time of the event."""

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

    `refused`: no backend was asked, because the question itself is invalid; it became a dead letter.
    """

    ce_type: ClassVar[str] = "crossfade.query.answered.v1"

    query_id: str
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


class RouteDecided(Event):
    """The route of a question and its reasons, with everything needed to repeat the decision."""

    ce_type: ClassVar[str] = "crossfade.route.decided.v1"

    query_id: str
    collection: CollectionName
    chosen: Backend
    alternatives: tuple[Alternative, ...]
    reasons: tuple[str, ...]
    features: dict[str, Scalar]
    rules_version: int
    phase: Phase
