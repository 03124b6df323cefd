"""The execution of one question: ask the chosen backends in order, each within its time limit, until one answers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import Literal

from connectors.errors import CrossfadeError, EmbeddingFailed, Refused
from connectors.ports import SearchBackend, SearchRequest
from connectors.telemetry import Trace, client_span, database_span, embeddings_span
from domain.quarantine import Quarantine
from domain.routing import Decision, decide
from migration.collection import CollectionPorts
from schemas.queries import Attempt, AttemptOutcome, Backend, Hit, QueryAsked
from schemas.rollout import Phase
from search.breakers import Breakers


@dataclass(slots=True)
class Search:
    """One question in flight: the duration of each step, and the attempts and errors so far.

    `phase` is that of the collection when the question was taken.
    """

    ports: CollectionPorts
    query: QueryAsked
    trace: Trace
    timings_ms: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    vector: bytes | None = None
    phase: Phase = field(init=False)

    def __post_init__(self) -> None:
        self.phase = self.ports.effective_phase


def decision_of(query: QueryAsked, phase: Phase, breakers: Breakers, quarantine: Quarantine | None) -> Decision:
    """Return the backends to ask, in order. If the collection is quarantined, Qdrant is asked last."""
    available = breakers.available(query.collection)
    if quarantine is None:
        return decide(query, phase, available)
    decision = decide(query, phase, {**available, "qdrant": False})
    return replace(
        decision, quarantined=True, reasons=(*decision.reasons, f"the collection is quarantined: {quarantine.message}")
    )


async def first_answer(
    search: Search, decision: Decision, breakers: Breakers, left_ms: int | None
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
    search: Search, backend: Backend, breakers: Breakers, limit_s: float, *, hurried: bool
) -> list[Hit] | None:
    """Return a backend's hits, None if it did not answer. `hurried`: the deadline left less than its own time limit.

    A fault of the question (a refused filter, a short deadline) says nothing about the backend.
    """
    collection = search.query.collection
    if not breakers.begin(collection, backend):
        search.errors.append(f"{backend}: circuit open")
        search.attempts.append(Attempt(backend=backend, outcome="skipped"))
        return None
    started = time.perf_counter()
    outcome: AttemptOutcome = "failed"
    says: Literal["well", "ill", "nothing"] = "nothing"
    try:
        async with asyncio.timeout(limit_s):
            hits = await ask_backend(search, backend)
        says, outcome = "well", "answered"
        return hits
    except (Refused, EmbeddingFailed) as error:
        outcome = "refused"
        search.errors.append(f"{backend}: {error}")
    except TimeoutError:
        # A deadline that is shorter than a good answer may take is the question's fault.
        fair = not hurried or limit_s * 1000 >= search.ports.settings.gates.p95_ms
        says, outcome = ("ill", "timed_out") if fair else ("nothing", "refused")
        search.errors.append(f"{backend}: no answer within {limit_s:.1f} s")
    except CrossfadeError as error:
        says = "ill"
        search.errors.append(f"{backend}: {error}")
    except Exception:
        says = "ill"
        raise
    finally:
        search.timings_ms[backend] = round((time.perf_counter() - started) * 1000, 3)
        search.attempts.append(Attempt(backend=backend, outcome=outcome, ms=search.timings_ms[backend]))
        breakers.end(collection, backend, says)
    return None


async def ask_backend(search: Search, backend: Backend) -> list[Hit]:
    """Return a backend's hits, embedding the question first if it needs that. Raises as `SearchBackend.search` does."""
    ports, query = search.ports, search.query
    legacy: SearchBackend = ports.vector_search or ports.text_search
    if (backend == "qdrant" or legacy.needs_vector) and search.vector is None:
        started = time.perf_counter()
        with client_span([search.trace], *embeddings_span(ports.settings.model, ports.embedder.dimension)):
            search.vector = await ports.embedder.embed_query(query.text)
        search.timings_ms["embed"] = round((time.perf_counter() - started) * 1000, 3)
    request = SearchRequest(query.text, search.vector, query.tenant, query.limit, query.filter)
    if backend == "qdrant":
        with client_span([search.trace], *database_span("qdrant", "search", ports.name)):
            return await ports.vectors.search(ports.name, request)
    with client_span([search.trace], *database_span(ports.settings.connector, "select", ports.settings.table)):
        return await legacy.search(request)
