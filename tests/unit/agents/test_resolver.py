"""The resolver publishes, then moves the ledger, then appends refreshes. A crash at any step loses nothing."""

from __future__ import annotations

from typing import Any

import pytest

from agents.batch import Failure, Message
from agents.resolver import lost_entry, resolve, save_refused_fold
from connectors.errors import Refused
from domain.fold import LedgerState
from domain.ledger import LedgerRow
from schemas.cloudevents import InvalidEvent
from schemas.content import content_hash
from schemas.documents import DocumentChanged, DocumentResolved, DocumentWritten
from schemas.keys import version_of
from schemas.records import Outgoing
from tests.unit.agents.parts import EPOCH, NAME, NOW, TRACEPARENT, Crash, World, content, too_large
from topics.catalogue import LOG, RESOLVED, WRITTEN

PUBLISH, LEDGER, REFRESH = f"publish {RESOLVED}", "ledger.save_fold", f"publish {LOG}"


def entry(world: World, document_id: str, body: str | None = "text", *, key: str = "", **other: Any) -> Message:
    given = None if body is None else content(body)
    known: dict[str, Any] = {
        "collection": NAME,
        "id": document_id,
        "origin": "producer",
        "deleted": given is None,
        "content": given,
        "content_hash": content_hash(given) if given else None,
        "cause": "event-1",
        "occurred_at_ms": NOW - 9,
    }
    offset = world.bus.inner.end_offsets(LOG)[0]
    known |= {"position": (EPOCH, 0, offset)} | other
    return world.put(LOG, DocumentChanged(**known), key or f"{NAME}/{document_id}", trace=TRACEPARENT)


def incomplete(world: World, document_id: str, lsn: int) -> Message:
    return entry(world, document_id, origin="legacy", incomplete=True, content=None, position=(1, 1, lsn))


def published(world: World) -> list[tuple[str, int]]:
    return [(event.id, event.version) for event in world.bus.events(RESOLVED, DocumentResolved)]


def v(offset: int) -> int:
    return version_of(EPOCH, offset)


async def test_the_decision_is_published_then_remembered_then_rows_are_read_again() -> None:
    world = World()
    batch = [entry(world, "1"), incomplete(world, "2", 7)]
    world.legacy.write_directly("2", content("as it is now"))
    assert await resolve(batch, **world.handled) == []
    assert world.steps() == ["ledger.read", PUBLISH, LEDGER, "ledger.read", "table.rows", REFRESH]


async def test_a_decision_is_the_entry_with_its_offset_as_version_in_the_same_trace() -> None:
    world = World()
    entry(world, "0")
    message = entry(world, "1", "body", content=content("body", year=2001))
    await resolve([message], **world.handled)
    (decision,) = world.bus.events(RESOLVED, DocumentResolved)
    assert decision == DocumentResolved(
        collection=NAME,
        id="1",
        version=v(1),
        origin="producer",
        content=content("body", year=2001),
        content_hash=content_hash(content("body")),
        cause="event-1",
        occurred_at_ms=NOW - 9,
    )
    (record,) = world.bus.inner.records(RESOLVED)
    assert (record.key, record.header("ce_id")) == (b"docs/1", f"docs/1@{v(1)}")
    assert record.header("traceparent") == TRACEPARENT
    assert world.legacy.ledger_rows["1"].state.written == v(1)


async def test_entries_of_one_document_are_folded_in_log_order_within_a_batch() -> None:
    world = World()
    batch = [
        entry(world, "1", "a"),
        entry(world, "1", None),
        entry(world, "1", "c"),
        entry(world, "1", "direct", origin="legacy", position=(1, 1, 5)),
    ]
    await resolve(batch, **world.handled)
    assert published(world) == [("1", v(0)), ("1", v(1)), ("1", v(2))]
    state = world.legacy.ledger_rows["1"].state
    assert (state.version, state.written, state.pending, state.legacy_position) == (v(3), v(2), True, (1, 1, 5))


def row_of(world: World, event: int, **other: Any) -> Message:
    """Append the refresh after the write of an event that omitted columns, read before anything was captured."""
    known: dict[str, Any] = {
        "origin": "refresh",
        "position": (),
        "cause": f"event-{event}",
        "cause_version": v(event),
    }
    return entry(world, "1", "row", **known | other)


async def test_an_event_whose_row_is_overtaken_is_reported_superseded_with_the_version_that_it_became() -> None:
    world = World()
    batch = [entry(world, "1"), entry(world, "1", "newer"), row_of(world, 0, rejects=v(0))]
    await resolve(batch, **world.handled)
    assert world.outcomes() == [("1", v(0), "superseded")]


async def test_an_event_whose_row_must_be_read_again_waits_for_it_unless_the_batch_overtakes_it() -> None:
    world = World()
    batch = [
        entry(world, "1"),
        entry(world, "1", "before", origin="legacy", position=(1, 1, 5)),
        row_of(world, 0, rejects=v(0)),
    ]
    await resolve(batch, **world.handled)
    assert world.outcomes() == []
    assert [(e.cause, e.cause_version) for e in world.bus.events(LOG, DocumentChanged)[3:]] == [("event-0", v(0))]
    later = World()
    batch = [
        entry(later, "1"),
        entry(later, "1", "before", origin="legacy", position=(1, 1, 5)),
        row_of(later, 0, rejects=v(0)),
        entry(later, "1", "behind", origin="legacy", position=(1, 1, 6)),
    ]
    await resolve(batch, **later.handled)
    assert later.outcomes() == [("1", v(0), "superseded")]
    assert len(later.bus.events(LOG, DocumentChanged)) == len(batch), "nothing is read again"


@pytest.mark.parametrize(
    ("step", "after"),
    [
        ("ledger.read", False),
        (PUBLISH, False),
        (PUBLISH, True),
        (LEDGER, False),
        (LEDGER, True),
        ("table.rows", False),
        (REFRESH, False),
        (REFRESH, True),
    ],
)
async def test_a_crash_at_any_step_and_a_second_delivery_lose_nothing(step: str, after: bool) -> None:
    world = World()
    world.legacy.write_directly("2", content("as it is now"))
    batch = [entry(world, "1"), incomplete(world, "2", 7), entry(world, "3", None)]
    world.journal.fail(step, Crash(), after=after)
    with pytest.raises(Crash):
        await resolve(batch, **world.handled)
    await resolve(batch, **world.handled)
    assert set(published(world)) == {("1", v(0)), ("3", v(2))}
    assert {one: row.state.version for one, row in world.legacy.ledger_rows.items()} == {
        "1": v(0),
        "2": v(1),
        "3": v(2),
    }
    refreshes = [event for event in world.bus.events(LOG, DocumentChanged) if event.origin == "refresh"]
    assert refreshes
    assert {(event.id, event.position) for event in refreshes} == {("2", (1, 1, 7))}
    assert all(event.content == content("as it is now") for event in refreshes)


@pytest.mark.parametrize("step", [LEDGER, "table.rows", REFRESH])
async def test_once_the_ledger_moved_a_second_delivery_publishes_no_decision_again(step: str) -> None:
    world = World()
    world.legacy.write_directly("2", content("as it is now"))
    batch = [entry(world, "1"), incomplete(world, "2", 7)]
    world.journal.fail(step, Crash(), after=True)
    with pytest.raises(Crash):
        await resolve(batch, **world.handled)
    world.steps()
    await resolve(batch, **world.handled)
    assert published(world) == [("1", v(0))]
    assert PUBLISH not in world.steps()


async def test_a_crash_between_publishing_and_remembering_publishes_the_same_decision_again() -> None:
    """Delivery is at least once: the second decision has the same version, and the stores' guards skip it."""
    world = World()
    batch = [entry(world, "1")]
    world.journal.fail(LEDGER, Crash())
    with pytest.raises(Crash):
        await resolve(batch, **world.handled)
    await resolve(batch, **world.handled)
    first, second = world.bus.inner.records(RESOLVED)
    assert (first.key, first.value, first.header("ce_id")) == (second.key, second.value, second.header("ce_id"))


async def test_a_batch_delivered_again_after_it_was_handled_changes_nothing() -> None:
    world = World()
    batch = [entry(world, "1"), entry(world, "2")]
    await resolve(batch, **world.handled)
    before = dict(world.legacy.ledger_rows)
    world.steps()
    await resolve(batch, **world.handled)
    assert (world.steps(), world.legacy.ledger_rows) == (["ledger.read"], before)


async def test_what_takes_no_effect_is_remembered_and_not_published() -> None:
    world = World()
    await resolve([entry(world, "1")], **world.handled)
    echo = entry(world, "1", origin="legacy", after_version=v(0), content=None, position=(1, 1, 3))
    await resolve([echo], **world.handled)
    assert published(world) == [("1", v(0))]
    assert world.legacy.ledger_rows["1"].state == LedgerState(
        version=v(1), written=v(0), pending=False, legacy_position=(1, 1, 3), producer_positions=((0, 1, 0),)
    )


async def test_a_row_is_read_again_as_long_as_the_ledger_asks_for_it() -> None:
    """The refresh of a replaced worker may be lost. The next entry of the document causes another one."""
    world = World()
    world.legacy.ledger_rows["1"] = LedgerRow(LedgerState(refresh=True, legacy_position=(1, 1, 9)))
    old = entry(world, "1", origin="legacy", position=(1, 1, 2))
    await resolve([old], **world.handled)
    assert published(world) == []
    assert world.steps()[-1] == REFRESH


async def test_an_entry_below_a_damaged_version_asks_for_no_row_again_and_again() -> None:
    world = World()
    world.legacy.ledger_rows["1"] = LedgerRow(LedgerState(version=v(1 << 20), refresh=True))
    await resolve([entry(world, "1", origin="refresh", position=())], **world.handled)
    assert REFRESH not in world.steps()


async def test_what_cannot_be_read_fails_alone() -> None:
    world = World()
    bad = world.bus.add(Outgoing(LOG, b"docs/9", b"{"))
    stranger = entry(world, "8", collection="unknown", key="unknown/8")
    good = entry(world, "1")
    failures = await resolve([bad, stranger, good], **world.handled)
    assert [failure.message for failure in failures] == [bad, stranger]
    assert all(isinstance(failure.error, InvalidEvent) for failure in failures)
    assert "unknown collection 'unknown'" in str(failures[1].error)
    assert published(world) == [("1", v(2))]


async def test_a_row_that_the_log_does_not_take_is_a_dead_letter_of_its_own_entry_and_of_no_other() -> None:
    world = World()
    world.legacy.write_directly("2", too_large())
    for one in "13":
        world.legacy.write_directly(one, content("fits"))
    batch = [incomplete(world, one, lsn) for lsn, one in enumerate("123")]
    batch.append(incomplete(world, "2", 1))  # a second delivery
    (failure,) = await resolve(batch, **world.handled)
    assert failure.message is batch[1]
    assert "the row does not fit into the log" in str(failure.error)
    refreshes = [event for event in world.bus.events(LOG, DocumentChanged) if event.origin == "refresh"]
    assert [(event.id, event.content) for event in refreshes] == [("1", content("fits")), ("3", content("fits"))]


async def test_later_entries_of_a_document_whose_row_is_too_large_are_handled_on_their_own() -> None:
    world = World()
    world.legacy.write_directly("1", too_large())
    assert len(await resolve([incomplete(world, "1", 7)], **world.handled)) == 1
    assert await resolve([incomplete(world, "1", 6)], **world.handled) == []
    world.legacy.write_directly("1", content("fits now"))
    assert await resolve([incomplete(world, "1", 5)], **world.handled) == []
    assert world.bus.events(LOG, DocumentChanged)[-1].content == content("fits now")
    await resolve([entry(world, "1", "captured", origin="legacy", position=(1, 1, 8))], **world.handled)
    assert published(world) == [("1", v(4))]


@pytest.mark.parametrize("step", [LEDGER, "table.rows"])
async def test_an_entry_whose_row_is_too_large_is_a_dead_letter_also_when_it_is_delivered_again(step: str) -> None:
    world = World()
    world.legacy.write_directly("1", too_large())
    batch = [row_of(world, 0, incomplete=True), incomplete(world, "1", 7)]
    world.journal.fail(step, Crash(), after=True)
    with pytest.raises(Crash):
        await resolve(batch, **world.handled)
    (failure,) = await resolve(batch, **world.handled)
    assert failure.message is batch[0], "the event that waits for the row is told of it"


async def test_a_producers_entry_never_fails_for_the_row_that_a_later_one_asks_for() -> None:
    world = World()
    world.legacy.write_directly("1", too_large())
    batch = [entry(world, "1"), row_of(world, 0, incomplete=True, rejects=v(0))]
    world.journal.fail("table.rows", Crash())
    with pytest.raises(Crash):
        await resolve(batch, **world.handled)
    assert await resolve(batch[:1], **world.handled) == []
    (failure,) = await resolve(batch[1:], **world.handled)
    assert failure.message is batch[1]


async def test_an_event_whose_row_goes_to_the_dead_letter_topic_is_reported_with_its_own_version() -> None:
    world = World()
    (known,) = lost_entry(row_of(world, 0, incomplete=True), Refused("too large"), world.ctx)
    world.bus.add(known)
    (outcome,) = world.bus.events(WRITTEN, DocumentWritten)
    assert (outcome.store, outcome.outcome, outcome.error) == ("qdrant", "dead_lettered", "too large")
    assert (outcome.cause, outcome.version, outcome.origin) == ("event-0", v(0), "refresh")
    others = [incomplete(world, "1", 7), entry(world, "1", origin="refresh", cause="")]
    others.append(world.bus.add(Outgoing(LOG, b"docs/1", b"{")))
    assert [lost_entry(message, Refused("too large"), world.ctx) for message in others] == [[], [], []]


async def test_a_producers_event_that_is_lost_before_any_store_is_reported_once() -> None:
    world = World()
    entry(world, "0")
    (known,) = lost_entry(entry(world, "1"), Refused("too large"), world.ctx)
    world.bus.add(known)
    (outcome,) = world.bus.events(WRITTEN, DocumentWritten)
    assert (outcome.store, outcome.outcome, outcome.error) == (None, "dead_lettered", "too large")
    assert (outcome.cause, outcome.version, outcome.origin) == ("event-1", v(1), "producer")


async def test_a_refused_decision_is_remembered_with_its_dead_letter_but_for_a_producers() -> None:
    world = World()
    batch = [entry(world, "1"), entry(world, "1", origin="refresh", rejects=v(0), position=()), entry(world, "2")]
    await resolve(batch[:1], **world.handled)
    assert world.legacy.ledger_rows["1"].state.pending
    ctx: dict[str, Any] = {"collections": world.collections, "ctx": world.ctx}
    for message in batch[1:]:
        await save_refused_fold(Failure(message, Refused("too large")), **ctx)
    state = world.legacy.ledger_rows["1"].state
    assert (state.version, state.pending) == (v(1), False)
    assert "2" not in world.legacy.ledger_rows
    await save_refused_fold(Failure(world.bus.add(Outgoing(LOG, b"k", b"{")), InvalidEvent("no JSON")), **ctx)
