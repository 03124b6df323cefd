"""Query: queries.asked → routing.decided and queries.answered. Asks the backends in the decided order.

A backend that fails or takes too long is passed over for the next one, and the answer says that it is degraded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from agents.batch import CollectionPorts, Collections, Message, Surroundings, collection_of
from connectors.errors import CrossfadeError
from connectors.ports import Bus, SearchBackend, SearchRequest
from connectors.telemetry import client_span, database_span, embeddings_span
from domain.breaker import Breaker
from domain.routing import RULES_VERSION, Decision, decide
from schemas.cloudevents import decode, encode
from schemas.documents import Event
from schemas.queries import Backend, Hit, QueryAnswered, QueryAsked, RouteDecided
from schemas.records import Outgoing
from schemas.settings import Routing
from topics.catalogue import ANSWERED, DECIDED

SOURCE = "crossfade/query"


@dataclass(slots=True)
class Breakers:
    """The circuit breaker of each backend of each collection, in this process."""

    routing: Routing
    states: dict[tuple[str, Backend], Breaker] = field(default_factory=dict)

    def of(self, collection: str, backend: Backend) -> Breaker:
        """Return a breaker's state, closed at first."""
        fresh = Breaker(self.routing.breaker_failures, self.routing.breaker_cooldown_s)
        return self.states.get((collection, backend), fresh)

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
    message: Message, *, collections: Collections, bus: Bus, around: Surroundings, breakers: Breakers
) -> None:
    """Answer one question. Raises InvalidEvent for one that cannot be read; a failing backend only degrades it."""
    query, attributes = decode(message.record, QueryAsked)
    ports = collection_of(collections, query.collection)
    started = time.perf_counter()
    decision = decide(query, ports.settings.phase, breakers.available(query.collection))
    search = _Search(ports, query, message)
    served_by: Backend | None = None
    hits: list[Hit] = []
    waited_ms = max(0, around.clock() - message.record.timestamp_ms)
    limit_ms = breakers.routing.backend_timeout_ms
    if query.deadline_ms is not None:
        limit_ms = min(limit_ms, query.deadline_ms - waited_ms)
    for backend in decision.order if limit_ms > 0 else ():
        found = await _ask(search, backend, breakers, limit_ms / 1000)
        if found is not None:
            served_by, hits = backend, found
            break
    if limit_ms <= 0:
        search.errors.append(f"the deadline of {query.deadline_ms} ms passed before an answer was begun")
    search.timings_ms["total"] = round((time.perf_counter() - started) * 1000, 3)
    answered = QueryAnswered(
        query_id=query.id,
        hits=tuple(hits),
        served_by=served_by,
        degraded=served_by != _preferred(decision),
        error="; ".join(search.errors)[:1000] if served_by is None else None,
        timings_ms=search.timings_ms,
    )
    around.telemetry.answered(
        query.collection, served_by or "none", answered.degraded, search.timings_ms["total"] / 1000
    )
    decided = _decided(search, decision, served_by)
    await bus.publish(
        [
            _record(message, answered, ANSWERED, query.id, attributes.id, around),
            _record(message, decided, DECIDED, query.id, attributes.id, around),
        ]
    )


def refused_question(message: Message, error: Exception, around: Surroundings) -> list[Outgoing]:
    """Return the answer to a question that cannot be read: its error, under its record's key."""
    query_id = (message.record.key or b"").decode("utf-8", "replace")
    if not query_id:
        return []
    answered = QueryAnswered(query_id=query_id, hits=(), served_by=None, degraded=True, error=str(error)[:1000])
    return [_record(message, answered, ANSWERED, query_id, query_id, around)]


def _preferred(decision: Decision) -> Backend:
    return decision.alternatives[0].backend


async def _ask(search: _Search, backend: Backend, breakers: Breakers, limit_s: float) -> list[Hit] | None:
    collection = search.query.collection
    key = (collection, backend)
    breaker = breakers.of(collection, backend)
    if not breaker.allows(time.monotonic()):
        search.errors.append(f"{backend}: circuit open")
        return None
    breakers.states[key] = breaker.started(time.monotonic())
    started = time.perf_counter()
    try:
        async with asyncio.timeout(limit_s):
            hits = await _search(search, backend)
    except (CrossfadeError, TimeoutError) as error:
        breakers.states[key] = breakers.of(collection, backend).failed_at(time.monotonic())
        reason = f"no answer within {limit_s:.1f} s" if isinstance(error, TimeoutError) else str(error)
        search.errors.append(f"{backend}: {reason}")
        return None
    finally:
        search.timings_ms[backend] = round((time.perf_counter() - started) * 1000, 3)
    breakers.states[key] = breakers.of(collection, backend).succeeded()
    return hits


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


def _record(message: Message, event: Event, topic: str, key: str, cause: str, around: Surroundings) -> Outgoing:
    return encode(
        event,
        topic=topic,
        key=key,
        event_id=f"{cause}/{event.ce_type}",
        source=SOURCE,
        time_ms=around.clock(),
        traceparent=message.trace.sent(topic),
    )
