"""The wiring: one row for each agent, with its handler and its failure handling. `topics.roles` says who reads what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from agents.batch import Failures
from agents.capture import capture
from agents.conductor import ConductorParts, conduct
from agents.embedder import embed
from agents.intake import intake, refused_submission
from agents.legacy_writer import confirm_refusal, lost_write, write_legacy
from agents.outcomes import lost_embedded, lost_resolved
from agents.query import Compare, answer_all, refused_question
from agents.resolver import lost_entry, resolve, save_refused_fold
from agents.runner import Handler, Lost, OnDeadLetter, RoleHealth
from agents.selection import named_by_key, submitted_to
from agents.vector_writer import Noted, write_vectors
from connectors.errors import Misconfigured
from connectors.ports import Bus
from domain.positions import StreamPlaces
from domain.quarantine import Quarantine, Reason
from migration.collection import CollectionPorts, Collections
from migration.context import HandlerContext
from schemas.records import Received
from search.breakers import Breakers
from topics.roles import BY_NAME, Role, RoleName


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker provides to its agents. `tables` are the collections whose captured changes are taken, by topic."""

    collections: Collections
    bus: Bus
    ctx: HandlerContext
    health: RoleHealth
    tables: Mapping[str, CollectionPorts]
    places: StreamPlaces
    unreadable: Callable[[str, Reason, str], Awaitable[None]]
    breakers: Breakers
    stopped: Callable[[str], Quarantine | None]
    noted: Noted
    compare: Compare
    conductor: ConductorParts | None = None


def _common(parts: Parts) -> dict[str, Any]:
    return {"collections": parts.collections, "bus": parts.bus, "ctx": parts.ctx}


def _conducting(parts: Parts) -> dict[str, Any]:
    if parts.conductor is None:
        raise Misconfigured("a conductor needs a journal and what judges gates")
    return {
        "collections": parts.collections,
        "journal": parts.conductor.journal,
        "judge": parts.conductor.judge,
        "ctx": parts.ctx,
    }


def _nothing_lost(_: Parts) -> Lost:
    return lambda _message, _error: []


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent: its role, its handler, and the parts of a worker that the handler gets.

    `lost` makes the function that answers for a message that became a dead letter, `on_dead_letter` the function that
    is called when the dead letter was published. `gives_up`: a message that fails with a transient error up to a limit
    becomes a dead letter. The other agents keep the order of changes: later changes would lack a change that they left
    out, or applied only in part. `collection_of` returns the collection of a record, if each collection has a lane.
    `parks`: a lane whose database is unavailable is parked. `concurrent`: messages are handled independently, since
    none waits for another.
    """

    role: Role
    handle: Callable[..., Awaitable[Failures]]
    given: Callable[[Parts], dict[str, Any]] = _common
    lost: Callable[[Parts], Lost] = _nothing_lost
    on_dead_letter: Callable[[Parts], OnDeadLetter] | None = None
    gives_up: bool = False
    collection_of: Callable[[Received], str] | None = None
    parks: bool = False
    concurrent: bool = False

    @property
    def name(self) -> RoleName:
        """The role's name."""
        return self.role.name

    def handler(self, parts: Parts) -> Handler:
        """Return the handler, bound to these parts."""
        return partial(self.handle, **self.given(parts))


AGENTS: tuple[Agent, ...] = (
    Agent(
        BY_NAME["intake"],
        intake,
        lost=lambda parts: partial(refused_submission, ctx=parts.ctx),
        collection_of=submitted_to,
    ),
    Agent(
        BY_NAME["capture"],
        capture,
        lambda parts: {
            "tables": parts.tables,
            "bus": parts.bus,
            "ctx": parts.ctx,
            "unreadable": parts.unreadable,
            "places": parts.places,
        },
    ),
    Agent(
        BY_NAME["resolver"],
        resolve,
        lost=lambda parts: partial(lost_entry, ctx=parts.ctx),
        on_dead_letter=lambda parts: partial(save_refused_fold, collections=parts.collections, ctx=parts.ctx),
        collection_of=named_by_key,
        parks=True,
    ),
    Agent(
        BY_NAME["legacy"],
        write_legacy,
        lost=lambda parts: partial(lost_write, collections=parts.collections, ctx=parts.ctx),
        on_dead_letter=lambda parts: partial(confirm_refusal, collections=parts.collections),
        collection_of=named_by_key,
        parks=True,
    ),
    Agent(
        BY_NAME["embedder"],
        embed,
        lambda parts: {**_common(parts), "progress": parts.health.progressed},
        lost=lambda parts: partial(lost_resolved, store="qdrant", ctx=parts.ctx),
        gives_up=True,
        collection_of=named_by_key,
    ),
    Agent(
        BY_NAME["vector"],
        write_vectors,
        lambda parts: {**_common(parts), "noted": parts.noted},
        lost=lambda parts: partial(lost_embedded, ctx=parts.ctx),
        gives_up=True,
        collection_of=named_by_key,
        parks=True,
    ),
    Agent(
        BY_NAME["query"],
        answer_all,
        lambda parts: {
            **_common(parts),
            "breakers": parts.breakers,
            "stopped": parts.stopped,
            "compare": parts.compare,
        },
        lost=lambda parts: partial(refused_question, ctx=parts.ctx),
        gives_up=True,
        concurrent=True,
    ),
    Agent(BY_NAME["conductor"], conduct, _conducting),
)
