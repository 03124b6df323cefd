"""The schemas are valid, and what the codec writes conforms to them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from schemas.cloudevents import encode
from schemas.content import Content
from schemas.documents import (
    DifferenceFound,
    DifferenceRepaired,
    DocumentChanged,
    DocumentEmbedded,
    DocumentResolved,
    DocumentSubmitted,
    DocumentWritten,
    EmbeddedChunk,
    Event,
)
from schemas.export import EVENTS, event_schema, schema_files
from schemas.queries import (
    Alternative,
    Attempt,
    Hit,
    MissingHit,
    QueryAnswered,
    QueryAsked,
    RankedHit,
    RouteDecided,
    ShadowCompared,
)
from schemas.rollout import GateResult, PhaseChanged, RolloutCommanded, RolloutDecided
from schemas.service import ServiceChanged
from topics.catalogue import CATALOGUE

CONTENT = Content(text={"body": "text", "title": None}, metadata={"n": 1, "f": 1.5, "b": True}, embedding=b"\x00\xff")

COMMAND = RolloutCommanded(id="c", collection="docs", action="promote", expected_revision=4, by="ann")
EXAMPLES: tuple[Event, ...] = (
    DocumentSubmitted(collection="docs", id="1", text="text", metadata={"a": None}, embedding=[0.5, 1.0]),
    DocumentSubmitted(collection="docs", id="1", text={"title": None, "body": "b"}, tenant="t"),
    DocumentChanged(collection="docs", id="1", origin="producer", content=CONTENT, position=(1, 0, 7)),
    DocumentChanged(collection="docs", id="1", origin="legacy", deleted=True, before_version=5),
    DocumentResolved(collection="docs", id="1", version=1 << 40, origin="refresh", content=CONTENT),
    DocumentEmbedded(
        collection="docs", id="1", version=1, origin="legacy", chunks=(EmbeddedChunk(text="t", vector=b"\x00" * 8),)
    ),
    DocumentWritten(collection="docs", id="1", store="legacy", version=1, outcome="applied", origin="legacy"),
    DocumentWritten(collection="docs", id="1", store=None, version=None, outcome="dead_lettered", origin="producer"),
    DifferenceFound(collection="docs", id="1", kind="ghost", detail="d", vector_version=3),
    DifferenceRepaired(collection="docs", id="1", kind="missing"),
    QueryAsked(id="q", collection="docs", text="why", filter={"n": 1}, route="qdrant", deadline_ms=100),
    QueryAnswered(
        query_id="q",
        hits=(Hit(document_id="1", chunk=0, score=0.5, text="t", version=None),),
        served_by="legacy",
        timings_ms={"search": 1.5},
    ),
    RouteDecided(
        query_id="q",
        collection="docs",
        chosen="legacy",
        alternatives=(Alternative(backend="qdrant", score=0.0, why_not="closed"),),
        reasons=("phase",),
        features={"words": 3},
        rules_version=1,
        phase="off",
    ),
    ServiceChanged(scope="backend", name="qdrant", collection="docs", state="half_open", reason="5 failures in a row"),
    ShadowCompared(
        query_id="q", collection="docs", phase="shadow", tenant="t", text="why", limit=10,
        answered=Attempt(backend="legacy", outcome="answered", ms=1.5),
        compared=Attempt(backend="qdrant", outcome="answered", ms=2.5), overlap=0.5, rbo=0.4,
        missing=(MissingHit(document_id="1", rank=1, reason="not_stored"),),
        answer=(RankedHit(document_id="1", score=1.0),),
    ),
    COMMAND,
    PhaseChanged(
        collection="docs", phase="shadow", previous="backfill", revision=4, began_as="dual_write", by="ann",
        changed_at_ms=1, entered_at_ms=1,
    ),
    RolloutDecided(
        command=COMMAND, outcome="gate_failed", before="shadow", after="shadow", target="canary_1", revision=4,
        message="failed: proof", gates=(GateResult(gate="proof", verdict="failed", value=1.5, limit=1.0),),
        decided_at_ms=1,
    ),
)  # fmt: skip


def errors(schema: dict[str, Any], data: object) -> list[str]:
    return [error.message for error in Draft202012Validator(schema, format_checker=FormatChecker()).iter_errors(data)]


@pytest.mark.parametrize(("name", "schema"), schema_files().items())
def test_every_schema_is_a_valid_one(name: str, schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    assert name.endswith(".schema.json")


def test_every_event_of_the_catalogue_has_a_schema_and_an_example() -> None:
    catalogued = {event for topic in CATALOGUE for event in topic.events}
    assert set(EVENTS) == catalogued == set(Event.__subclasses__()) == {type(event) for event in EXAMPLES}
    assert len({event.ce_type for event in EVENTS}) == len(EVENTS)


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_what_the_codec_writes_is_valid_and_reads_back(event: Event) -> None:
    sent = encode(event, topic="t", key="docs/1", event_id="1", source="test", time_ms=0)
    data = orjson.loads(sent.value or b"")
    assert errors(event_schema(type(event)), data) == []
    assert type(event).model_validate_json(sent.value or b"") == event


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (DocumentSubmitted, {"collection": "docs", "text": "t"}),
        (DocumentSubmitted, {"collection": "Docs", "id": "1", "text": "t"}),
        (DocumentSubmitted, {"collection": "docs", "id": "1", "text": "t", "metadata": {"a": {}}}),
        (DocumentSubmitted, {"collection": "docs", "id": "1", "text": "t", "extra": 1}),
        (QueryAsked, {"id": "q", "collection": "docs", "text": ""}),
        (QueryAsked, {"id": "q", "collection": "docs", "text": "t", "limit": 0}),
        (QueryAsked, {"id": "q", "collection": "docs", "text": "t", "route": "elsewhere"}),
    ],
)
def test_what_the_models_refuse_the_schemas_refuse(event: type[Event], data: dict[str, Any]) -> None:
    assert errors(event_schema(event), data)
    with pytest.raises(ValueError, match=event.__name__):
        event.model_validate(data)
