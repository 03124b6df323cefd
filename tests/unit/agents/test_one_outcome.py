"""Every producer event has exactly one published outcome for each store, whatever columns it omits."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
import pytest

from agents.embedder import embed
from agents.intake import intake
from agents.legacy_writer import lost_write, write_legacy
from agents.outcomes import lost_embedded, lost_resolved
from agents.resolver import lost_entry, resolve
from agents.runner import Handler, Lost, Runner
from agents.vector_writer import write_vectors
from connectors.errors import Misconfigured
from schemas.content import Content
from schemas.documents import DocumentWritten
from schemas.records import Outgoing
from tests.unit.agents.parts import NAME, World, content, too_large
from topics.catalogue import EMBEDDED, LOG, RESOLVED, SUBMITTED, WRITTEN

VECTOR = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
OTHER = struct.pack("<8f", *reversed(VECTOR))
WHOLE: dict[str, Any] = {"text": "new text", "metadata": {"year": 1}}
WITHOUT_TEXT: dict[str, Any] = {"metadata": {"year": 1}}
WITHOUT_YEAR: dict[str, Any] = {"text": "new text"}
Reported = dict[tuple[str, str], list[str]]


async def all_reported(world: World, *events: dict[str, Any], broken: str = "") -> Reported:
    """Run submissions of one document through every role until none has more to read.

    Return the outcomes by event and store.
    """
    await world.prepared()
    for number, fields in enumerate(events):
        value = orjson.dumps({"collection": NAME, "id": "1", **fields})
        world.bus.add(Outgoing(SUBMITTED, b"docs/1", value, (("ce_id", b"event-%d" % number),)))
    lost: dict[str, tuple[str, Callable[..., Any], Lost]] = {
        "intake": (SUBMITTED, intake, lambda _m, _e: []),
        "resolver": (LOG, resolve, partial(lost_entry, ctx=world.ctx)),
        "legacy": (RESOLVED, write_legacy, partial(lost_write, **world.reported)),
        "embedder": (RESOLVED, embed, partial(lost_resolved, store="qdrant", ctx=world.ctx)),
        "vector": (EMBEDDED, write_vectors, partial(lost_embedded, ctx=world.ctx)),
    }
    done = dict.fromkeys(lost, 0)
    while any(done[role] < len(world.bus.messages(topic)) for role, (topic, _, _) in lost.items()):
        for role, (topic, handler, answers) in lost.items():
            batch = world.bus.messages(topic)[done[role] :]
            done[role] += len(batch)
            handle: Handler = partial(fail if role == broken else handler, **world.handled)
            if batch:
                await Runner(role, handle, answers, world.bus, world.ctx).run(batch)
    found: Reported = {}
    for event in world.bus.events(WRITTEN, DocumentWritten):
        if event.cause:
            found.setdefault((event.cause, str(event.store)), []).append(event.outcome)
    return found


async def fail(*_: Any, **__: Any) -> Any:
    raise Misconfigured("no right")


def reported(legacy: str, qdrant: str, number: int = 0) -> Reported:
    event = f"event-{number}"
    return {(event, "legacy"): [legacy], (event, "qdrant"): [qdrant]}


EVENTS = [
    pytest.param(None, WHOLE, id="whole"),
    pytest.param(None, WITHOUT_TEXT, id="without text"),
    pytest.param(None, WITHOUT_YEAR, id="without year"),
    pytest.param(None, {**WITHOUT_YEAR, "embedding": VECTOR}, id="vector in no row, without year"),
    pytest.param("vec", WHOLE, id="without embedding"),
    pytest.param("vec", {**WITHOUT_YEAR, "embedding": VECTOR}, id="embedding, without year"),
]


def with_row(embedding: str | None, row: Content) -> World:
    world = World(embedding=embedding, constraint=lambda _, given: "no" if given.metadata.get("year") == 13 else None)
    world.legacy.write_directly("1", row)
    return world


@pytest.mark.parametrize("row", [content("old", year=0), content("old").model_copy(update={"embedding": OTHER})])
@pytest.mark.parametrize(("embedding", "event"), EVENTS)
async def test_an_event_that_is_written_is_applied_once_in_each_store(
    embedding: str | None, event: dict[str, Any], row: Content
) -> None:
    assert await all_reported(with_row(embedding, row), event) == reported("applied", "applied")


@pytest.mark.parametrize(("embedding", "event"), EVENTS)
async def test_an_event_that_never_came_to_the_table_has_one_outcome_in_each_store(
    embedding: str | None, event: dict[str, Any]
) -> None:
    world = with_row(embedding, content("old", year=0))
    assert await all_reported(world, event, broken="legacy") == reported("dead_lettered", "applied")


@pytest.mark.parametrize(("embedding", "event"), EVENTS)
async def test_an_event_that_the_table_refuses_has_one_outcome_in_each_store(
    embedding: str | None, event: dict[str, Any]
) -> None:
    world = with_row(embedding, content("old", year=13))
    event = event if "year" not in event.get("metadata", {}) else {**event, "metadata": {"year": 13}}
    outcomes = await all_reported(world, event)
    assert outcomes["event-0", "legacy"] == ["dead_lettered"]
    assert len(outcomes["event-0", "qdrant"]) == 1


@pytest.mark.parametrize(("embedding", "event"), EVENTS)
async def test_an_event_is_not_written_where_the_phase_leaves_qdrant_alone(
    embedding: str | None, event: dict[str, Any]
) -> None:
    world = World(phase="off", embedding=embedding)
    assert await all_reported(world, event) == reported("applied", "not_written")
    lost = World(phase="off", embedding=embedding)
    assert await all_reported(lost, event, broken="legacy") == reported("dead_lettered", "not_written")


@pytest.mark.parametrize(
    ("row", "reason"), [(content("long " * 30), "text"), (too_large(), "the row does not fit into the log")]
)
async def test_an_event_whose_row_is_too_large_for_qdrant_or_the_log_is_reported_and_nothing_else(
    row: Content, reason: str
) -> None:
    world = with_row(None, row)
    await world.prepared()
    await world.store("1", 1, "old")
    assert await all_reported(world, WITHOUT_TEXT) == reported("applied", "dead_lettered")
    (error,) = [event.error for event in world.bus.events(WRITTEN, DocumentWritten) if event.store == "qdrant"]
    assert (error or "").startswith(reason)
    if reason == "text":
        ((_, _, text),) = await world.points("1")
        assert text is None, "Qdrant serves the document that it had before"


async def test_a_vector_in_no_row_stays_with_its_text_behind_which_an_event_without_text_comes() -> None:
    world = with_row(None, content("old"))
    both = await all_reported(world, {**WITHOUT_YEAR, "embedding": VECTOR}, {"metadata": {"year": 2}})
    assert both == reported("applied", "applied") | reported("applied", "applied", 1)
    (chunk,) = (await world.vectors.stored(NAME, ["1"], content=True))["1"]
    assert (chunk.text, chunk.vector) == ("new text", struct.pack("<8f", *VECTOR))
    assert world.embedder.calls == []
