"""One trace follows a document, a question, or a captured change through the worker, and holds none of its text."""

from __future__ import annotations

import secrets
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv._incubating.attributes import messaging_attributes as messaging
from opentelemetry.semconv._incubating.attributes.db_attributes import DbSystemNameValues
from opentelemetry.semconv.attributes import db_attributes as db

from schemas.settings import Connector
from tests.flow.foreign import SUBMITTED_TYPE
from tests.flow.otlp_receiver import ReceivedSpan
from tests.flow.site import Store, eventually
from topics.catalogue import ANSWERED, ASKED, DECIDED, EMBEDDED, LOG, RESOLVED, SUBMITTED, WRITTEN

pytestmark = pytest.mark.stack
MODEL = "all-MiniLM-L6-v2"
LEDGER = "crossfade_ledger"
SYSTEMS: dict[Connector, str] = {
    "postgres": DbSystemNameValues.POSTGRESQL.value,
    "mariadb": DbSystemNameValues.MARIADB.value,
}


@dataclass(frozen=True)
class Caller:
    """The span of an outside caller that sends an event, as the header `traceparent` names it."""

    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-01"


async def trace_with(store: Store, trace_id: str, names: Sequence[str]) -> list[ReceivedSpan]:
    """Return a trace once it is complete: it has these spans, each as often as named, and all parents but one.

    A span is exported when it ends, and a parent ends after its children.
    """

    async def complete() -> bool:
        spans = store.site.spans.trace(trace_id)
        return not Counter(names) - Counter(span.name for span in spans) and len(unknown_parents(spans)) == 1

    await eventually(complete, f"the trace has {', '.join(names)}, and one parent that is not a span of it")
    return store.site.spans.trace(trace_id)


def one(spans: Sequence[ReceivedSpan], name: str) -> ReceivedSpan:
    (found,) = [span for span in spans if span.name == name]
    return found


def unknown_parents(spans: Sequence[ReceivedSpan]) -> list[str]:
    """Return the parents that are not spans of the trace."""
    known = {span.span_id for span in spans}
    return [span.parent for span in spans if span.parent not in known]


def expect_connected(spans: Sequence[ReceivedSpan], caller: str) -> None:
    """Check that the spans form one tree: every parent is in it, except that of the first span, which is `caller`."""
    assert len({span.span_id for span in spans}) == len(spans)
    assert unknown_parents(spans) == [caller]


def expect_names(spans: Sequence[ReceivedSpan]) -> None:
    """Check that every span has the name and kind that the semantic conventions derive from its attributes."""
    for span in spans:
        a = span.attributes
        if messaging.MESSAGING_SYSTEM in a:
            assert a[messaging.MESSAGING_SYSTEM] == messaging.MessagingSystemValues.KAFKA.value
            operation = str(a[messaging.MESSAGING_OPERATION_TYPE])
            assert operation in {value.value for value in messaging.MessagingOperationTypeValues}
            assert a[messaging.MESSAGING_OPERATION_NAME] == operation
            assert span.name == f"{operation} {a[messaging.MESSAGING_DESTINATION_NAME]}"
            assert span.kind == {"send": "producer", "process": "consumer"}[operation]
            if operation == "process":
                assert str(a[messaging.MESSAGING_CONSUMER_GROUP_NAME]).startswith("crossfade-")
                assert str(a[messaging.MESSAGING_DESTINATION_PARTITION_ID]).isdigit()
                assert isinstance(a[messaging.MESSAGING_KAFKA_OFFSET], int)
        elif db.DB_SYSTEM_NAME in a:
            assert a[db.DB_SYSTEM_NAME] in {*SYSTEMS.values(), "qdrant"}
            assert span.name == f"{a[db.DB_OPERATION_NAME]} {a[db.DB_COLLECTION_NAME]}"
            assert span.kind == "client"
        else:
            operation = gen_ai.GenAiOperationNameValues.EMBEDDINGS.value
            assert a[gen_ai.GEN_AI_OPERATION_NAME] == operation
            assert span.name == f"{operation} {a[gen_ai.GEN_AI_REQUEST_MODEL]}"
            assert isinstance(a[gen_ai.GEN_AI_EMBEDDINGS_DIMENSION_COUNT], int)
            assert span.kind == "client"


def expect_no_text(spans: Sequence[ReceivedSpan], *words: str) -> None:
    for span in spans:
        for word in words:
            assert word not in span.raw, span.name


async def test_a_submission_is_one_trace_from_the_producer_to_both_outcomes(docs: Store) -> None:
    caller = Caller()
    data = {
        "collection": docs.name,
        "id": "traced",
        "text": {"title": "quokka", "body": "Kwekwe is a word of the text alone."},
        "metadata": {"kind": "wombat", "line": None},
    }
    foreign = docs.site.foreign
    cause = foreign.send(SUBMITTED, f"{docs.name}/traced", data, SUBMITTED_TYPE, traceparent=caller.traceparent)
    for store in ("legacy", "qdrant"):
        assert (await docs.written(cause, store)).trace_id == caller.trace_id
    upsert = f"upsert {docs.name}"
    names = [
        *(f"process {topic}" for topic in (SUBMITTED, LOG, RESOLVED, RESOLVED, EMBEDDED)),
        *(f"send {topic}" for topic in (LOG, RESOLVED, EMBEDDED, WRITTEN, WRITTEN)),
        *(f"select {LEDGER}", upsert, upsert, f"embeddings {MODEL}"),
    ]
    spans = await trace_with(docs, caller.trace_id, names)
    assert Counter(span.name for span in spans) == Counter(names)
    expect_connected(spans, caller.span_id)
    expect_names(spans)
    expect_no_text(spans, "quokka", "Kwekwe", "wombat")
    assert one(spans, f"process {SUBMITTED}").parent == caller.span_id
    written_to = {span.attributes[db.DB_SYSTEM_NAME] for span in spans if span.name == upsert}
    assert written_to == {SYSTEMS[docs.connector], "qdrant"}
    assert one(spans, f"select {LEDGER}").attributes[db.DB_SYSTEM_NAME] == SYSTEMS[docs.connector]


async def test_a_question_is_one_trace_through_decision_search_and_answer(docs: Store) -> None:
    for route, search in (("qdrant", f"search {docs.name}"), ("legacy", f"select {docs.name}")):
        caller, query_id = Caller(), uuid.uuid4().hex
        question = {"id": query_id, "collection": docs.name, "text": "where do numbats sleep", "route": route}
        docs.site.foreign.ask(question, traceparent=caller.traceparent)
        answer = await docs.site.foreign.answer(query_id)
        decided = await docs.site.foreign.decision(query_id)
        assert {answer.trace_id, decided.trace_id} == {caller.trace_id}
        names = [f"process {ASKED}", search, f"send {DECIDED}", f"send {ANSWERED}"]
        names += [f"embeddings {MODEL}"] if route == "qdrant" else []
        spans = await trace_with(docs, caller.trace_id, names)
        assert Counter(span.name for span in spans) == Counter(names)
        expect_connected(spans, caller.span_id)
        expect_names(spans)
        expect_no_text(spans, "numbats")


async def test_a_captured_change_starts_a_trace_of_its_own(docs: Store) -> None:
    await docs.execute("insert into {t} values ('by-sql', 'bilby', 'Bandicoots dig in this text.', 'possum', 1)")
    written = await docs.site.foreign.found(WRITTEN, lambda seen: seen.key == f"{docs.name}/by-sql")
    assert (written.data["store"], written.data["origin"], written.data["outcome"]) == (
        "qdrant",
        "legacy",
        "applied",
    )
    assert docs.ports.capture is not None
    captured = docs.ports.capture.topic
    names = [
        *(f"process {topic}" for topic in (captured, LOG, RESOLVED, RESOLVED, EMBEDDED)),
        *(f"send {topic}" for topic in (LOG, RESOLVED, EMBEDDED, WRITTEN)),
        *(f"select {LEDGER}", f"update {LEDGER}", f"upsert {docs.name}", f"embeddings {MODEL}"),
    ]
    spans = await trace_with(docs, written.trace_id, names)
    assert Counter(span.name for span in spans) == Counter(names)
    expect_connected(spans, "")
    expect_names(spans)
    expect_no_text(spans, "bilby", "Bandicoots", "possum")
    assert one(spans, f"process {captured}").parent == ""
    assert one(spans, f"upsert {docs.name}").attributes[db.DB_SYSTEM_NAME] == "qdrant"


async def test_a_refused_change_and_its_refresh_are_one_trace(docs: Store) -> None:
    caller = Caller()
    data = {"collection": docs.name, "id": "row-6", "text": {"title": "dunnart"}, "metadata": {"line": 5000}}
    foreign = docs.site.foreign
    cause = foreign.send(SUBMITTED, f"{docs.name}/row-6", data, SUBMITTED_TYPE, traceparent=caller.traceparent)
    assert (await docs.written(cause, "legacy")).trace_id == caller.trace_id
    names = [f"process {LOG}", f"process {LOG}", f"send {RESOLVED}", f"send {RESOLVED}", f"update {LEDGER}"]
    spans = await trace_with(docs, caller.trace_id, names)
    expect_connected(spans, caller.span_id)
    expect_names(spans)
    expect_no_text(spans, "dunnart", "title 6")
