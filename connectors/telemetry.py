"""Traces and metrics through the OpenTelemetry API, by its messaging, database and generative-AI conventions.

They carry only ids, versions and hashes, never the text of a document or a question. With no exporter configured, an
incoming trace context is passed on unchanged, and nothing else is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from schemas.records import Received

_PROPAGATOR = TraceContextTextMapPropagator()
Attributes = Mapping[str, str | int | float | bool]
# Version 00 of the W3C format has 55 characters; a later version may add to it.
_LONGEST_TRACEPARENT = 256
# The conventions' names of database systems, if they differ from ours.
_SYSTEMS = {"postgres": "postgresql"}


def traceparent_of(span: Span) -> str | None:
    """Return the W3C traceparent of a span, or None if it has no valid context."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    flags = int(context.trace_flags) & TraceFlags.SAMPLED
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"


@dataclass(slots=True)
class Trace:
    """The path of one record through one handler: its `process` span, and the records published because of it."""

    tracer: trace.Tracer | None = None
    span: Span | None = None
    incoming: str | None = None
    _open: list[Span] = field(default_factory=list)

    def _context(self) -> Context | None:
        return trace.set_span_in_context(self.span) if self.span is not None else None

    def sent(self, topic: str) -> str | None:
        """Record a `send` span, and return the traceparent for a record published because of this one."""
        if self.tracer is None or self.span is None:
            return self.incoming
        span = self.tracer.start_span(
            f"send {topic}",
            self._context(),
            SpanKind.PRODUCER,
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.type": "send",
                "messaging.operation.name": "send",
                "messaging.destination.name": topic,
            },
        )
        span.end()
        return traceparent_of(span)

    def begin(self, name: str, attributes: Attributes) -> None:
        """Start a client span (a database call, an embedding) under the `process` span."""
        if self.tracer is not None and self.span is not None:
            self._open.append(
                self.tracer.start_span(name, self._context(), SpanKind.CLIENT, attributes=dict(attributes))
            )

    def end(self, error: BaseException | None = None) -> None:
        """End the newest client span."""
        if self._open:
            span = self._open.pop()
            if error is not None:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                span.set_attribute("error.type", type(error).__name__)
            span.end()

    def finish(self, error: BaseException | None = None) -> None:
        """End the `process` span."""
        while self._open:
            self.end(error)
        if self.span is not None:
            if error is not None:
                self.span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                self.span.set_attribute("error.type", type(error).__name__)
            self.span.end()


@contextmanager
def client_span(traces: Sequence[Trace], name: str, attributes: Attributes) -> Iterator[None]:
    """Open one client span under each of the traces for the duration of a call that serves all of them."""
    for each in traces:
        each.begin(name, attributes)
    try:
        yield
    except BaseException as error:
        for each in traces:
            each.end(error)
        raise
    else:
        for each in traces:
            each.end()


def database_span(system: str, operation: str, collection: str) -> tuple[str, Attributes]:
    """Return name and attributes of a database call's span.

    `system` is a connector or `qdrant`, `collection` the table.
    """
    return f"{operation} {collection}", {
        "db.system.name": _SYSTEMS.get(system, system),
        "db.operation.name": operation,
        "db.collection.name": collection,
    }


def embeddings_span(model: str, dimension: int) -> tuple[str, Attributes]:
    """Return name and attributes of an embedding call's span."""
    return f"embeddings {model}", {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "crossfade",
        "gen_ai.request.model": model,
        "gen_ai.embeddings.dimension.count": dimension,
    }


@lru_cache(maxsize=1024)
def _outcome_attributes(collection: str, store: str, outcome: str) -> Attributes:
    return {"db.collection.name": collection, "crossfade.store": store, "crossfade.outcome": outcome}


# The SDK's own boundaries are made for milliseconds: nearly every duration would be in the first bucket.
_BOUNDARIES_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0)


def _seconds(meter: metrics.Meter, name: str, description: str) -> metrics.Histogram:
    return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=_BOUNDARIES_S)


class Telemetry:
    """Starts traces for received records and keeps the counters of the agents."""

    def __init__(self, *, tracing: bool) -> None:
        self._tracer = trace.get_tracer("crossfade") if tracing else None
        meter = metrics.get_meter("crossfade")
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Records that an agent took from a topic"
        )
        self._process = _seconds(meter, "messaging.process.duration", "Time a handler took for a batch")
        self._outcomes = meter.create_counter("crossfade.documents", "{document}", "Documents by store and outcome")
        self._freshness = _seconds(meter, "crossfade.freshness", "From a change to its write in a store")
        self._embedded = meter.create_counter("crossfade.embedded_texts", "{text}", "Chunks whose vector was computed")
        self._queries = _seconds(meter, "crossfade.query.duration", "From question to answer")
        self._dead = meter.create_counter("crossfade.dead_letters", "{message}", "Records sent to a dead-letter topic")
        self._compared = meter.create_counter(
            "crossfade.shadow.comparisons", "{question}", "Questions chosen for comparison"
        )
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._stopped = meter.create_gauge(
            "crossfade.collection.stopped", "{collection}", "1 for a quarantined collection"
        )
        self._circuit = meter.create_gauge(
            "crossfade.circuit.state", "{state}", "Of a backend, a role or a collection: 0 closed, 1 half open, 2 open"
        )
        self._why: dict[str, str] = {}
        self._retries = meter.create_counter("crossfade.retries", "{attempt}", "Batches tried again")

    def received(self, record: Received, group: str) -> Trace:
        """Return the trace of a received record. A record without a traceparent starts a trace of its own."""
        incoming = record.header("traceparent")
        if incoming is not None and len(incoming) > _LONGEST_TRACEPARENT:
            incoming = None  # drop it: it would travel with every record that follows from this one
        if self._tracer is None:
            return Trace(incoming=incoming)
        parent = _PROPAGATOR.extract({"traceparent": incoming}) if incoming else Context()
        span = self._tracer.start_span(
            f"process {record.topic}",
            parent,
            SpanKind.CONSUMER,
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.operation.name": "process",
                "messaging.destination.name": record.topic,
                "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset,
                "messaging.consumer.group.name": group,
                "messaging.kafka.message.key": (record.key or b"").decode("utf-8", "replace"),
            },
        )
        return Trace(self._tracer, span, incoming)

    def handled(self, topic: str, role: str, count: int, seconds: float) -> None:
        """Count a handled batch."""
        attributes = {"messaging.destination.name": topic, "crossfade.role": role}
        self._consumed.add(count, attributes)
        self._process.record(seconds, attributes)
        for (collection, store, outcome), number in self._counts.items():
            self._outcomes.add(number, _outcome_attributes(collection, store, outcome))
        self._counts.clear()

    def outcome(self, collection: str, store: str, outcome: str, latency_ms: int) -> None:
        """Count the outcome of a change in a store. The counts are reported with the batch, which is cheaper."""
        self._counts[collection, store, outcome] += 1
        if outcome == "applied":
            self._freshness.record(latency_ms / 1000, _outcome_attributes(collection, store, outcome))

    def embedded(self, collection: str, count: int) -> None:
        """Count chunks of documents whose vectors were computed, neither precomputed nor taken from stored points."""
        self._embedded.add(count, {"db.collection.name": collection})

    def answered(self, collection: str, backend: str, degraded: bool, seconds: float) -> None:
        """Record an answered question."""
        self._queries.record(
            seconds,
            {"db.collection.name": collection, "crossfade.backend": backend, "crossfade.degraded": degraded},
        )

    def compared(self, collection: str, outcome: str) -> None:
        """Count a question that was chosen for comparison: compared, failed, shed for want of room, or cancelled."""
        self._compared.add(1, {"db.collection.name": collection, "crossfade.outcome": outcome})

    def dead_lettered(self, topic: str) -> None:
        """Count a dead letter."""
        self._dead.add(1, {"messaging.destination.name": topic})

    def service_state(self, scope: str, name: str, collection: str, state: str) -> None:
        """Publish the state of a circuit: closed, half_open or open."""
        attributes = {"crossfade.scope": scope, "crossfade.name": name}
        if collection:
            attributes["db.collection.name"] = collection
        self._circuit.set(("closed", "half_open", "open").index(state), attributes)

    def stopped(self, collection: str, reason: str | None) -> None:
        """Publish that a collection is quarantined, and why. With None, the collection is active again."""
        before = self._why.pop(collection, None)
        if before is not None and before != reason:
            self._stopped.set(0, {"db.collection.name": collection, "crossfade.reason": before})
        if reason is not None:
            self._why[collection] = reason
            self._stopped.set(1, {"db.collection.name": collection, "crossfade.reason": reason})

    def retried(self, role: str) -> None:
        """Count a batch that is tried again."""
        self._retries.add(1, {"crossfade.role": role})
