"""Query: queries.asked → routing.decided and queries.answered. Asks the backends in the decided order.

A backend that fails or takes too long is passed over for the next one, and the answer says that it is degraded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import orjson

from agents.batch import Message
from connectors.errors import CrossfadeError, EmbeddingFailed, Refused
from connectors.ports import Bus, SearchBackend, SearchRequest
from connectors.telemetry import client_span, database_span, embeddings_span
from domain.breaker import Breaker
from domain.filters import canonical_filter
from domain.quarantine import Halt
from domain.routing import RULES_VERSION, Decision, decide
from migration.collection import CollectionPorts, Collections, collection_of
from migration.context import HandlerContext
from schemas.cloudevents import InvalidEvent, decode, encode
from schemas.documents import Event
from schemas.queries import Backend, Hit, QueryAnswered, QueryAsked, RouteDecided
from schemas.records import Outgoing
from schemas.service import Scope, State
from schemas.settings import Routing
from topics.catalogue import ANSWERED, DECIDED

SOURCE = "crossfade/query"
MAX_QUERY_ID = 128


class Tell(Protocol):
    """Takes the state of a circuit, as `agents.status_reporter` does."""

    def __call__(self, scope: Scope, name: str, state: State, *, collection: str = "", reason: str = "") -> None:
        """Note a state."""
        ...


def told_to_nobody(scope: Scope, name: str, state: State, *, collection: str = "", reason: str = "") -> None:
    """Take a state and tell nobody."""


def in_service(_: str) -> Halt | None:
    """Say of every collection that it is in service."""
    return None


@dataclass(slots=True)
class Breakers:
    """The circuit breaker of each backend of each collection, in this process; `tell` gets each change of state."""

    routing: Routing
    tell: Tell = told_to_nobody
    states: dict[tuple[str, Backend], Breaker] = field(default_factory=dict)

    def of(self, collection: str, backend: Backend) -> Breaker:
        """Return a breaker's state, closed at first."""
        fresh = Breaker(self.routing.breaker_failures, self.routing.breaker_cooldown_s)
        return self.states.get((collection, backend), fresh)

    def begin(self, collection: str, backend: Backend) -> bool:
        """Say whether a call is let through, and count it as begun; `end` must follow."""
        now = time.monotonic()
        breaker = self.of(collection, backend)
        if not breaker.allows(now):
            return False
        self._moved(collection, backend, breaker.started(now))
        return True

    def end(self, collection: str, backend: Backend, says: Literal["well", "ill", "nothing"]) -> None:
        """Note what an ended call says of its backend."""
        breaker = self.of(collection, backend)
        after = (
            breaker.succeeded()
            if says == "well"
            else breaker.failed_at(time.monotonic())
            if says == "ill"
            else breaker.released()
        )
        self._moved(collection, backend, after)

    def _moved(self, collection: str, backend: Backend, after: Breaker) -> None:
        self.states[collection, backend] = after
        reason = f"{after.failed} failures in a row" if after.failed else ""
        self.tell("backend", backend, after.state(time.monotonic()), collection=collection, reason=reason)

    def available(self, collection: str) -> Mapping[Backend, bool]:
        """Say of each backend whether a call would be let through now."""
        now = time.monotonic()
        backends: tuple[Backend, ...] = ("legacy", "qdrant")
        return {backend: self.of(collection, backend).allows(now) for backend in backends}


@dataclass(slots=True)
class _Search:
    """One question on its way: what each step took, and what went wrong."""

    ports: CollectionPorts
    query: QueryAsked
    message: Message
    timings_ms: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    vector: bytes | None = None


async def answer(
    message: Message,
    *,
    collections: Collections,
    bus: Bus,
    ctx: HandlerContext,
    breakers: Breakers,
    stopped: Callable[[str], Halt | None] = in_service,
) -> None:
    """Answer one question; a failing backend only degrades the answer.

    Raises InvalidEvent for one that cannot be read, and for one whose filter no document could ever match.

    Of a collection that is `stopped`, Qdrant may lack changes: it is asked where the table cannot answer.
    """
    query, attributes = decode(message.record, QueryAsked)
    ports = collection_of(collections, query.collection)
    try:
        wanted = canonical_filter(ports.table.description, query.filter)
    except ValueError as error:
        raise InvalidEvent(str(error)) from None
    query = query.model_copy(update={"filter": wanted})
    started = time.perf_counter()
    decision = _decision(query, ports, breakers, stopped(query.collection))
    search = _Search(ports, query, message)
    left_ms = None
    if query.deadline_ms is not None:
        left_ms = query.deadline_ms - max(0, ctx.clock() - message.record.timestamp_ms)
    served_by, hits = await _first_answer(search, decision, breakers, left_ms)
    search.timings_ms["total"] = round((time.perf_counter() - started) * 1000, 3)
    answered = QueryAnswered(
        query_id=query.id,
        hits=tuple(hits),
        served_by=served_by,
        degraded=served_by != _preferred(decision),
        error="; ".join(search.errors)[:1000] if served_by is None else None,
        timings_ms=search.timings_ms,
    )
    ctx.telemetry.answered(query.collection, served_by or "none", answered.degraded, search.timings_ms["total"] / 1000)
    decided = _decided(search, decision, served_by)
    await bus.publish(
        [
            _record(message, answered, ANSWERED, query.id, attributes.id, ctx),
            _record(message, decided, DECIDED, query.id, attributes.id, ctx),
        ]
    )


def refused_question(message: Message, error: Exception, ctx: HandlerContext) -> list[Outgoing]:
    """Return the answer to a question that is refused: its error, under its id, else under its record's key."""
    query_id = _query_id(message) or (message.record.key or b"").decode("utf-8", "replace")
    if not query_id:
        return []
    answered = QueryAnswered(
        query_id=query_id, hits=(), served_by=None, degraded=True, error=str(error)[:1000], refused=True
    )
    return [_record(message, answered, ANSWERED, query_id, query_id, ctx)]


def _query_id(message: Message) -> str | None:
    """Return the id in a question, however wrong the rest of it is."""
    try:
        value = orjson.loads(message.record.value or b"")
    except orjson.JSONDecodeError:
        return None
    query_id = value.get("id") if isinstance(value, dict) else None
    return query_id if isinstance(query_id, str) and 0 < len(query_id) <= MAX_QUERY_ID else None


def _decision(query: QueryAsked, ports: CollectionPorts, breakers: Breakers, halt: Halt | None) -> Decision:
    available = breakers.available(query.collection)
    if halt is None:
        return decide(query, ports.settings.phase, available)
    decision = decide(query, ports.settings.phase, {**available, "qdrant": False})
    return replace(decision, reasons=(*decision.reasons, f"the collection is stopped: {halt.said}"))


def _preferred(decision: Decision) -> Backend:
    return decision.alternatives[0].backend


async def _first_answer(
    search: _Search, decision: Decision, breakers: Breakers, left_ms: int | None
) -> tuple[Backend | None, list[Hit]]:
    """Ask the backends in order, each within its own time limit and all before the deadline, `left_ms` from now."""
    started = time.monotonic()
    own_limit_s = breakers.routing.backend_timeout_ms / 1000
    for backend in decision.order:
        left_s = own_limit_s if left_ms is None else left_ms / 1000 - (time.monotonic() - started)
        if left_s <= 0:
            search.errors.append(f"the deadline of {search.query.deadline_ms} ms passed before {backend} was asked")
            break
        hits = await _ask(search, backend, breakers, min(own_limit_s, left_s), hurried=left_s < own_limit_s)
        if hits is not None:
            return backend, hits
    return None, []


async def _ask(
    search: _Search, backend: Backend, breakers: Breakers, limit_s: float, *, hurried: bool
) -> list[Hit] | None:
    """Return a backend's hits, None where it gave none. `hurried`: the deadline left it less than its own time limit.

    What the question is to blame for (a filter that is refused, a short deadline) says nothing of the backend.
    """
    collection = search.query.collection
    if not breakers.begin(collection, backend):
        search.errors.append(f"{backend}: circuit open")
        return None
    started = time.perf_counter()
    says: Literal["well", "ill", "nothing"] = "nothing"
    try:
        async with asyncio.timeout(limit_s):
            hits = await _search(search, backend)
        says = "well"
        return hits
    except (Refused, EmbeddingFailed) as error:
        search.errors.append(f"{backend}: {error}")
    except TimeoutError:
        says = "nothing" if hurried else "ill"
        search.errors.append(f"{backend}: no answer within {limit_s:.1f} s")
    except CrossfadeError as error:
        says = "ill"
        search.errors.append(f"{backend}: {error}")
    except Exception:
        says = "ill"
        raise
    finally:
        search.timings_ms[backend] = round((time.perf_counter() - started) * 1000, 3)
        breakers.end(collection, backend, says)
    return None


async def _search(search: _Search, backend: Backend) -> list[Hit]:
    ports, query = search.ports, search.query
    legacy: SearchBackend = ports.vector_search or ports.text_search
    if (backend == "qdrant" or legacy.needs_vector) and search.vector is None:
        started = time.perf_counter()
        with client_span([search.message.trace], *embeddings_span(ports.settings.model, ports.embedder.dimension)):
            search.vector = await ports.embedder.embed_query(query.text)
        search.timings_ms["embed"] = round((time.perf_counter() - started) * 1000, 3)
    request = SearchRequest(query.text, search.vector, query.tenant, query.limit, query.filter)
    if backend == "qdrant":
        with client_span([search.message.trace], *database_span("qdrant", "search", ports.name)):
            return await ports.vectors.search(ports.name, request)
    with client_span([search.message.trace], *database_span(ports.settings.connector, "select", ports.settings.table)):
        return await legacy.search(request)


def _decided(search: _Search, decision: Decision, served_by: Backend | None) -> RouteDecided:
    reasons = (*decision.reasons, *search.errors)
    return RouteDecided(
        query_id=search.query.id,
        collection=search.query.collection,
        chosen=served_by or decision.order[0],
        alternatives=decision.alternatives,
        reasons=reasons,
        features=decision.features,
        rules_version=RULES_VERSION,
        phase=search.ports.settings.phase,
    )


def _record(message: Message, event: Event, topic: str, key: str, cause: str, ctx: HandlerContext) -> Outgoing:
    return encode(
        event,
        topic=topic,
        key=key,
        event_id=f"{cause}/{event.ce_type}",
        source=SOURCE,
        time_ms=ctx.clock(),
        traceparent=message.trace.sent(topic),
    )
