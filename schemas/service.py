"""The event for a change of a worker's service: a circuit opened, a role waits, a collection is quarantined."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.documents import CollectionName, Event

Scope = Literal["backend", "role", "collection"]
State = Literal["closed", "half_open", "open"]


class ServiceChanged(Event):
    """A part of one worker changed its state; `closed` is the normal state.

    Scope `backend`: the circuit breaker of a backend (`legacy`, `qdrant`) for questions to a `collection`. Scope
    `role`: open while the role waits for a store, a broker or the model; each attempt is its probe. Scope
    `collection`: open while the collection is quarantined.
    """

    ce_type: ClassVar[str] = "crossfade.service.changed.v1"

    scope: Scope
    name: str
    collection: CollectionName | None = None
    state: State
    reason: Annotated[str, Field(max_length=1000)] = ""
