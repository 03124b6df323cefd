"""Benchmarks of latency under an open loop: freshness after a publish and after a commit, and answers to questions."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence

from load.arrivals import Schedule, open_loop
from load.figures import Figure, Latencies
from load.outcomes import WAIT_S
from load.path import submission
from load.place import TEXTS, VECTORS, Place
from operations.clients.questions import Asker
from schemas.queries import Backend, QueryAsked

_RATE_S = 20.0
# Java compiles the hot code of the broker and Connect: in their first seconds, latencies are three times as long.
_WARM_UP_S = 15.0
_QUESTIONS_WARM_UP_S = 3.0
_ANSWER_BOUND_S = 20.0


async def freshness_publish(at: Place, texts: Sequence[str], seconds: float) -> list[Figure]:
    """Measure publish → searchable: until the vector writer's outcome, which follows the write, is received."""
    await _published(at, texts, "warm", _WARM_UP_S)
    latencies = await _published(at, texts, "fresh", seconds)
    return latencies.figures("freshness_publish", ["p50", "p95", "p99"], rate_s=_RATE_S)


async def _published(at: Place, texts: Sequence[str], name: str, seconds: float) -> Latencies:
    latencies = Latencies()

    async def send(number: int, due: float) -> None:
        document_id = f"{name}-{number}"
        seen = at.outcomes.expect(document_id, "qdrant")
        await at.bus.publish([submission(TEXTS, document_id, texts[number % len(texts)])])
        async with asyncio.timeout(WAIT_S):
            latencies.record(await seen - due)

    await open_loop(Schedule(_RATE_S, seconds), send)
    return latencies


async def freshness_commit(at: Place, texts: Sequence[str], seconds: float) -> list[Figure]:
    """Measure SQL commit → searchable, for rows that an application inserts. Counts from when the INSERT was due."""
    await _committed(at, texts, "warm-row", _WARM_UP_S)
    latencies = await _committed(at, texts, "row", seconds)
    return latencies.figures("freshness_commit", ["p50", "p95", "p99"], rate_s=_RATE_S)


async def _committed(at: Place, texts: Sequence[str], name: str, seconds: float) -> Latencies:
    latencies = Latencies()
    one_statement = asyncio.Lock()

    async def send(number: int, due: float) -> None:
        document_id = f"{name}-{number}"
        seen = at.outcomes.expect(document_id, "qdrant")
        async with one_statement:
            await at.sql.execute(
                f"INSERT INTO {TEXTS} VALUES ($1, $2, 'load')", document_id, texts[number % len(texts)]
            )
        async with asyncio.timeout(WAIT_S):
            latencies.record(await seen - due)

    await open_loop(Schedule(_RATE_S, seconds), send)
    return latencies


async def answers(at: Place, asked: Sequence[str], seconds: float, points: int) -> list[Figure]:
    """Measure question → answer over Kafka, from Qdrant (`answer_…`) and from the table (`answer_legacy_…`)."""
    async with Asker(at.settings.kafka, at.bus) as asker:
        await _ask(asker, asked, "qdrant", _QUESTIONS_WARM_UP_S, strict=False)
        qdrant = await _ask(asker, asked, "qdrant", seconds)
        await _ask(asker, asked, "legacy", _QUESTIONS_WARM_UP_S, strict=False)
        legacy = await _ask(asker, asked, "legacy", seconds / 2)
    return [
        *qdrant.figures("answer", ["p50", "p95", "p99"], rate_s=_RATE_S, points=points),
        *legacy.figures("answer_legacy", ["p50", "p95"], rate_s=_RATE_S, points=points),
    ]


async def _ask(asker: Asker, asked: Sequence[str], route: Backend, seconds: float, *, strict: bool = True) -> Latencies:
    """Ask at a fixed rate. With `strict`, an answer by the other side ends the run; a cold backend may be slow."""
    latencies = Latencies()

    async def send(number: int, due: float) -> None:
        text = asked[number % len(asked)]
        query = QueryAsked(id=uuid.uuid4().hex, collection=VECTORS, text=text, limit=10, route=route)
        answered = await asker.ask(query, _ANSWER_BOUND_S)
        if strict and answered.served_by != route:
            raise RuntimeError(f"a question was answered by {answered.served_by}: {answered.error}")
        latencies.record(time.perf_counter() - due)

    await open_loop(Schedule(_RATE_S, seconds), send)
    return latencies
