"""The event of a change in what a worker can do: a circuit opened, a role waits, a collection is stopped."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.documents import CollectionName, Event

Scope = Literal["backend", "role", "collection"]
State = Literal["closed", "half_open", "open"]


class ServiceChanged(Event):
    """Something of one worker changed its state; `closed` is as it should be.

    A `backend` (`legacy`, `qdrant`) of questions to a `collection`: its circuit breaker. A `role`: open while it waits
    for a store, a broker or the model; each try is its probe. A `collection`: open while it is stopped.
    """

    ce_type: ClassVar[str] = "crossfade.service.changed.v1"

    scope: Scope
    name: str
    collection: CollectionName | None = None
    state: State
    reason: Annotated[str, Field(max_length=1000)] = ""
