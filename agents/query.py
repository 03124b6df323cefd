"""Query: queries.asked → routing.decided and queries.answered. How a question is answered is in `search`.

If a backend fails or takes too long, the next one is asked, and the answer is marked as degraded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import orjson

from agents.batch import Batch, Failure, Failures, Message
from connectors.ports import Bus
from domain.filters import canonical_filter
from domain.quarantine import Quarantine
from domain.routing import RULES_VERSION, Decision
from migration.collection import Collections, collection_of
from migration.context import HandlerContext
from schemas.cloudevents import InvalidEvent, decode
from schemas.documents import Event
from schemas.queries import Backend, Hit, QueryAnswered, QueryAsked, RouteDecided
from schemas.records import Outgoing
from search.answer import Search, decision_of, first_answer
from search.breakers import Breakers
from topics.catalogue import ANSWERED, DECIDED

SOURCE = "crossfade/query"
MAX_QUERY_ID = 128
Compare = Callable[[Search, Backend, Sequence[Hit]], None]
"""Takes an answer for comparison with the other side, and returns at once."""


def always_active(_: str) -> Quarantine | None:
    """Return None: every collection is active."""
    return None


def not_compared(_search: Search, _answered: Backend, _hits: Sequence[Hit]) -> None:
    """Compare nothing."""


async def answer(
    message: Message,
    *,
    collections: Collections,
    bus: Bus,
    ctx: HandlerContext,
    breakers: Breakers,
    stopped: Callable[[str], Quarantine | None] = always_active,
    compare: Compare = not_compared,
) -> None:
    """Answer one question; a failing backend only degrades the answer.

    Raises InvalidEvent for a question that cannot be read, and for one whose filter no document could ever match.

    Qdrant may lack changes of a `stopped` collection, so it is asked only if the table cannot answer. Once the answer
    is published, `compare` gets it, unless it is degraded.
    """
    query, attributes = decode(message.record, QueryAsked)
    ports = collection_of(collections, query.collection)
    try:
        wanted = canonical_filter(ports.table.description, query.filter)
    except ValueError as error:
        raise InvalidEvent(str(error)) from None
    query = query.model_copy(update={"filter": wanted})
    started = time.perf_counter()
    search = Search(ports, query, message.trace)
    decision = decision_of(query, search.phase, breakers, stopped(query.collection))
    left_ms = None
    if query.deadline_ms is not None:
        left_ms = query.deadline_ms - max(0, ctx.clock() - message.record.timestamp_ms)
    served_by, hits = await first_answer(search, decision, breakers, left_ms)
    search.timings_ms["total"] = round((time.perf_counter() - started) * 1000, 3)
    answered = QueryAnswered(
        query_id=query.id,
        collection=query.collection,
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
    if served_by is not None and not answered.degraded:
        compare(search, served_by, hits)


async def answer_all(
    batch: Batch,
    *,
    collections: Collections,
    bus: Bus,
    ctx: HandlerContext,
    breakers: Breakers,
    stopped: Callable[[str], Quarantine | None] = always_active,
    compare: Compare = not_compared,
) -> Failures:
    """Answer each question of a batch; return the ones that cannot be read as failures."""
    failures: Failures = []
    for message in batch:
        try:
            await answer(
                message,
                collections=collections,
                bus=bus,
                ctx=ctx,
                breakers=breakers,
                stopped=stopped,
                compare=compare,
            )
        except InvalidEvent as error:
            failures.append(Failure(message, error))
    return failures


def refused_question(message: Message, error: Exception, ctx: HandlerContext) -> list[Outgoing]:
    """Return the answer to a refused question: the error, under the question's id or else its record's key."""
    query_id = _query_id(message) or (message.record.key or b"").decode("utf-8", "replace")
    if not query_id:
        return []
    answered = QueryAnswered(
        query_id=query_id, hits=(), served_by=None, degraded=True, error=str(error)[:1000], refused=True
    )
    return [_record(message, answered, ANSWERED, query_id, query_id, ctx)]


def _query_id(message: Message) -> str | None:
    """Return the id of a question, however wrong the rest of the question is."""
    try:
        value = orjson.loads(message.record.value or b"")
    except orjson.JSONDecodeError:
        return None
    query_id = value.get("id") if isinstance(value, dict) else None
    return query_id if isinstance(query_id, str) and 0 < len(query_id) <= MAX_QUERY_ID else None


def _preferred(decision: Decision) -> Backend:
    return decision.alternatives[0].backend


def _decided(search: Search, decision: Decision, served_by: Backend | None) -> RouteDecided:
    reasons = (*decision.reasons, *search.errors)
    return RouteDecided(
        query_id=search.query.id,
        collection=search.query.collection,
        chosen=served_by or decision.order[0],
        alternatives=decision.alternatives,
        reasons=reasons,
        features=decision.features,
        rules_version=RULES_VERSION,
        phase=search.phase,
        attempts=tuple(search.attempts),
        quarantined=decision.quarantined,
    )


def _record(message: Message, event: Event, topic: str, key: str, cause: str, ctx: HandlerContext) -> Outgoing:
    event_id = f"{cause}/{event.ce_type}"
    return ctx.emit(event, topic, key, event_id=event_id, source=SOURCE, trace=message.trace)
