"""The legacy writer writes producers' changes once, publishes each outcome, and has refused changes undone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agents.batch import Failure
from agents.legacy_writer import RefusedByLegacy, confirm_refusal, lost_write, write_legacy
from connectors.errors import Misconfigured, StoreUnavailable
from domain.fold import LedgerState, Verdict, fold
from domain.legacy import LegacyRow
from schemas.cloudevents import InvalidEvent, decode
from schemas.content import Content
from schemas.documents import DocumentChanged, DocumentWritten
from schemas.records import Outgoing, Received
from tests.unit.agents.parts import NAME, NOW, Crash, World, content, too_large
from topics.catalogue import LOG, RESOLVED, WRITTEN

APPLY, REFRESH, REPORT = "table.apply", f"publish {LOG}", f"publish {WRITTEN}"


def no_poison(_: str, given: Content) -> str | None:
    return "value too long" if "poison" in given.full_text() else None


async def test_a_producers_change_is_written_with_its_version_and_reported() -> None:
    world = World()
    assert await write_legacy([world.resolved("1", 5, "body")], **world.handled) == []
    assert world.row("1") == ("body", 5)
    assert world.legacy.ledger_rows["1"].legacy_version == 5
    (reported,) = world.bus.events(WRITTEN, DocumentWritten)
    assert reported == DocumentWritten(
        collection=NAME,
        id="1",
        store="legacy",
        version=5,
        outcome="applied",
        origin="producer",
        cause="cause-5",
        latency_ms=50,
    )
    assert world.steps() == [APPLY, REPORT]


async def test_the_newest_of_each_document_is_written_and_the_others_are_reported_as_superseded() -> None:
    world = World()
    batch = [world.resolved("1", 5, "a"), world.resolved("2", 6, "b"), world.resolved("1", 7, "c")]
    await write_legacy(batch, **world.handled)
    assert (world.row("1"), world.row("2")) == (("c", 7), ("b", 6))
    assert [change.after_version for change in world.legacy.captured if change.id == "1"] == [7]
    assert world.outcomes() == [("1", 5, "superseded"), ("2", 6, "applied"), ("1", 7, "applied")]


async def test_an_older_version_behind_the_newest_in_a_batch_does_not_win() -> None:
    world = World()
    batch = [world.resolved("1", 7, "new"), world.resolved("1", 8, "captured", origin="legacy")]
    await write_legacy([*batch, world.resolved("1", 5, "old")], **world.handled)
    assert world.row("1") == ("new", 7)
    assert world.legacy.ledger_rows["1"].legacy_version == 8
    assert world.outcomes() == [("1", 7, "applied"), ("1", 5, "superseded")]


async def test_a_version_that_is_twice_in_a_batch_is_not_superseded() -> None:
    world = World()
    await write_legacy([world.resolved("1", 5, "a"), world.resolved("1", 5, "a")], **world.handled)
    assert world.outcomes() == [("1", 5, "applied"), ("1", 5, "applied")]


async def test_a_deletion_takes_the_row_away() -> None:
    world = World()
    await write_legacy([world.resolved("1", 5)], **world.handled)
    await write_legacy([world.resolved("1", 6, None)], **world.handled)
    assert world.row("1") is None
    assert world.outcomes() == [("1", 5, "applied"), ("1", 6, "applied")]


@pytest.mark.parametrize("origin", ["legacy", "refresh"])
async def test_what_came_from_the_table_is_never_written_back_and_moves_the_ledger(origin: str) -> None:
    world = World()
    world.legacy.write_directly("1", content("newer than what was captured"))
    assert await write_legacy([world.resolved("1", 5, "captured", origin=origin)], **world.handled) == []
    assert world.row("1") == ("newer than what was captured", None)
    assert world.legacy.ledger_rows["1"].legacy_version == 5
    assert world.outcomes() == []


async def test_a_producers_change_before_a_captured_one_is_written_and_the_ledger_moves_to_the_captured() -> None:
    world = World()
    batch = [world.resolved("1", 5, None), world.resolved("1", 6, "direct", origin="legacy")]
    await write_legacy(batch, **world.handled)
    assert world.legacy.ledger_rows["1"].legacy_version == 6
    assert world.outcomes() == [("1", 5, "applied")]
    late = world.resolved("1", 4, "late")
    await write_legacy([late], **world.handled)
    assert world.row("1") is None


async def test_a_second_delivery_joined_with_a_later_change_does_not_write_over_the_application() -> None:
    """Version 5 was written, the application changed the row, and the worker was replaced before it committed."""
    world = World()
    ours = world.resolved("1", 5, "the producer's")
    await write_legacy([ours], **world.handled)
    world.legacy.write_directly("1", content("the application's"))
    theirs = world.resolved("1", 6, "the application's", origin="legacy")
    await write_legacy([ours, theirs], **world.handled)
    assert world.row("1") == ("the application's", 5)
    assert world.legacy.ledger_rows["1"].legacy_version == 6


async def test_a_second_delivery_writes_nothing_again() -> None:
    world = World()
    batch = [world.resolved("1", 5, "a"), world.resolved("2", 6, None)]
    await write_legacy(batch, **world.handled)
    captured = list(world.legacy.captured)
    assert await write_legacy(batch, **world.handled) == []
    assert world.legacy.captured == captured


@pytest.mark.parametrize(("step", "after"), [(APPLY, False), (APPLY, True), (REPORT, False), (REPORT, True)])
async def test_a_crash_at_any_step_and_a_second_delivery_write_once_and_report_each(step: str, after: bool) -> None:
    world = World()
    batch = [world.resolved("1", 5, "a"), world.resolved("2", 6, "b")]
    world.journal.fail(step, Crash(), after=after)
    with pytest.raises(Crash):
        await write_legacy(batch, **world.handled)
    await write_legacy(batch, **world.handled)
    assert (world.row("1"), world.row("2")) == (("a", 5), ("b", 6))
    assert len(world.legacy.captured) == 2
    assert set(world.outcomes()) == {("1", 5, "applied"), ("2", 6, "applied")}


async def test_a_deletion_that_was_applied_and_not_reported_is_reported_as_applied() -> None:
    world = World()
    await write_legacy([world.resolved("1", 5, "a")], **world.handled)
    gone = [world.resolved("1", 6, None)]
    world.journal.fail(REPORT, Crash())
    with pytest.raises(Crash):
        await write_legacy(gone, **world.handled)
    await write_legacy(gone, **world.handled)
    assert world.outcomes()[1:] == [("1", 6, "applied")]


async def test_a_late_deletion_is_not_applied_where_a_row_carries_its_version() -> None:
    world = World()
    await write_legacy([world.resolved("1", 5, None), world.resolved("1", 7, None)], **world.handled)
    world.legacy.stored["1"] = LegacyRow("1", 5, Content(text={"title": "put there", "body": None}))
    await write_legacy([world.resolved("1", 5, None)], **world.handled)
    assert world.outcomes()[2:] == [("1", 5, "superseded")]


async def test_an_older_version_that_comes_late_is_reported_as_superseded() -> None:
    world = World()
    await write_legacy([world.resolved("1", 7, "new")], **world.handled)
    await write_legacy([world.resolved("1", 6, "old"), world.resolved("2", 5, "b")], **world.handled)
    assert world.row("1") == ("new", 7)
    assert world.outcomes() == [("1", 7, "applied"), ("1", 6, "superseded"), ("2", 5, "applied")]


async def test_a_refused_change_fails_and_has_the_row_read_again_before_anything_is_reported() -> None:
    world = World(constraint=no_poison)
    world.legacy.write_directly("1", content("as it was"))
    refused, good = world.resolved("1", 5, "poison"), world.resolved("2", 6, "b")
    (failure,) = await write_legacy([refused, good], **world.handled)
    assert failure.message is refused
    assert isinstance(failure.error, RefusedByLegacy)
    assert "value too long" in str(failure.error)
    (refresh,) = world.bus.events(LOG, DocumentChanged)
    assert (refresh.id, refresh.origin, refresh.rejects, refresh.content) == ("1", "refresh", 5, content("as it was"))
    assert refresh.occurred_at_ms == NOW
    assert (world.row("1"), world.row("2")) == (("as it was", None), ("b", 6))
    assert world.outcomes() == [("2", 6, "applied")]
    assert world.steps() == [APPLY, "ledger.read", "table.rows", REFRESH, REPORT]


async def test_a_row_that_is_not_as_it_was_sent_is_applied_and_read_again() -> None:
    world = World()
    world.legacy.trigger = lambda row: replace(row, content=content(row.content.full_text().strip()))
    batch = [world.resolved("1", 5, " trimmed "), world.resolved("2", 6, "as it was")]
    assert await write_legacy(batch, **world.handled) == []
    assert world.outcomes() == [("1", 5, "applied"), ("2", 6, "applied")]
    (refresh,) = world.bus.events(LOG, DocumentChanged)
    assert (refresh.origin, refresh.id, refresh.rejects) == ("refresh", "1", 5)
    assert refresh.content == content("trimmed")
    # If a worker ends before it publishes the entry, the second delivery publishes it.
    await write_legacy(batch, **world.handled)
    assert [entry.rejects for entry in world.bus.events(LOG, DocumentChanged)] == [5, 5]


async def test_versions_that_leave_columns_out_are_written_one_after_the_other_over_the_row() -> None:
    world = World()
    await write_legacy([world.resolved("1", 4, content=content("kept", year=1999))], **world.handled)
    without: dict[str, Any] = {
        "content": content("new", year=None).model_copy(update={"metadata": {}}),
        "omitted": ("year",),
    }
    text: dict[str, Any] = {"content": content("x", year=2001).model_copy(update={"text": {}}), "omitted": ("body",)}
    batch = [world.resolved("1", 6, **text), world.resolved("1", 5, **without), world.resolved("2", 7, **without)]
    assert await write_legacy(batch, **world.handled) == []
    assert world.legacy.stored["1"].content == content("new", year=2001)
    assert world.legacy.stored["2"].content == content("new", year=None)
    refreshes = world.bus.events(LOG, DocumentChanged)
    assert [(entry.id, entry.rejects) for entry in refreshes] == [("1", 6), ("2", 7)]
    assert all(entry.cause for entry in refreshes), "what becomes of the row is the outcome of the event"
    reported = [
        (one.id, one.version, one.outcome)
        for one in world.bus.events(WRITTEN, DocumentWritten)
        if one.store == "qdrant"
    ]
    assert reported == [("1", 5, "superseded")]
    await write_legacy([*batch, world.resolved("1", 9, content=content("full"))], **world.handled)
    assert world.legacy.stored["1"].content == content("full")


async def test_a_row_that_the_log_does_not_take_is_left_to_the_resolver_and_every_write_is_applied() -> None:
    world = World()
    world.legacy.write_directly("1", too_large())
    part: dict[str, Any] = {"content": content("x", year=2).model_copy(update={"text": {}}), "omitted": ("body",)}
    batch = [world.resolved(one, version, **part) for one, version in (("1", 5), ("2", 6), ("3", 7))]
    assert await write_legacy(batch, **world.handled) == []
    assert world.outcomes() == [("1", 5, "applied"), ("2", 6, "applied"), ("3", 7, "applied")]
    two, three, unread = world.bus.events(LOG, DocumentChanged)
    assert [(row.id, row.incomplete, row.cause_version) for row in (two, three)] == [("2", False, 6), ("3", False, 7)]
    assert (unread.id, unread.incomplete, unread.deleted, unread.content, unread.rejects) == ("1", True, False, None, 5)
    assert (unread.cause, unread.cause_version) == ("cause-5", 5)


async def test_the_row_of_an_event_is_its_outcome_also_where_a_later_event_is_refused() -> None:
    world = World(constraint=no_poison)
    world.legacy.write_directly("1", content("as it was"))
    part: dict[str, Any] = {"content": content("x", year=2).model_copy(update={"text": {}}), "omitted": ("body",)}
    poison: dict[str, Any] = {"content": Content(text={"body": "poison"}), "omitted": ("year",)}
    batch = [world.resolved("1", 5, **part), world.resolved("1", 6, **poison)]
    (failure,) = await write_legacy(batch, **world.handled)
    assert failure.message is batch[1]
    (refresh,) = world.bus.events(LOG, DocumentChanged)
    assert (refresh.content, refresh.rejects) == (content("as it was", year=2), 6)
    assert (refresh.cause, refresh.cause_version) == ("cause-5", 5)
    reported = [(e.version, e.outcome) for e in world.bus.events(WRITTEN, DocumentWritten) if e.store == "qdrant"]
    assert reported == [(6, "superseded")]


async def test_a_second_delivery_of_versions_that_leave_columns_out_does_not_write_over_the_application() -> None:
    world = World()
    first = world.resolved("1", 5, content=content("first", year=1))
    await write_legacy([first], **world.handled)
    world.legacy.write_directly("1", content("the application's", year=1))
    year: dict[str, Any] = {"content": content("x", year=2).model_copy(update={"text": {}}), "omitted": ("body",)}
    await write_legacy([first, world.resolved("1", 6, **year)], **world.handled)
    assert world.legacy.stored["1"].content == content("the application's", year=2)


async def test_a_version_superseded_in_its_batch_is_not_refused() -> None:
    world = World(constraint=no_poison)
    assert await write_legacy([world.resolved("1", 5, "poison"), world.resolved("1", 6, "b")], **world.handled) == []
    assert world.outcomes() == [("1", 5, "superseded"), ("1", 6, "applied")]


@pytest.mark.parametrize(
    ("step", "after"), [(APPLY, True), ("table.rows", False), (REFRESH, False), (REFRESH, True), (REPORT, False)]
)
async def test_a_refusal_that_was_not_reported_is_reported_by_the_second_delivery(step: str, after: bool) -> None:
    world = World(constraint=no_poison)
    batch = [world.resolved("1", 5, "poison"), world.resolved("2", 6, "b")]
    world.journal.fail(step, Crash(), after=after)
    with pytest.raises(Crash):
        await write_legacy(batch, **world.handled)
    (failure,) = await write_legacy(batch, **world.handled)
    assert failure.message is batch[0]
    assert "published again" in str(failure.error)
    refreshes = world.bus.events(LOG, DocumentChanged)
    assert refreshes
    assert {(refresh.id, refresh.rejects) for refresh in refreshes} == {("1", 5)}


async def test_a_refusal_joined_with_a_later_change_is_reported_again_where_it_is_delivered_alone() -> None:
    world = World(constraint=no_poison)
    refused = world.resolved("1", 5, "poison")
    await write_legacy([refused, world.resolved("1", 6, "direct", origin="legacy")], **world.handled)
    (failure,) = await write_legacy([refused], **world.handled)
    assert isinstance(failure.error, RefusedByLegacy)


async def test_a_refusal_that_was_reported_is_not_reported_again() -> None:
    world = World(constraint=no_poison)
    batch = [world.resolved("1", 5, "poison")]
    (failure,) = await write_legacy(batch, **world.handled)
    await confirm_refusal(failure, collections=world.collections)
    assert world.legacy.ledger_rows["1"].refused_version == 0
    assert await write_legacy(batch, **world.handled) == []
    assert len(world.bus.events(LOG, DocumentChanged)) == 1


async def test_only_refusals_are_noted_as_reported() -> None:
    world = World(constraint=no_poison)
    (failure,) = await write_legacy([world.resolved("1", 5, "poison")], **world.handled)
    await confirm_refusal(Failure(failure.message, InvalidEvent("unreadable")), collections=world.collections)
    assert world.legacy.ledger_rows["1"].refused_version == 5


async def test_a_store_that_does_not_answer_is_left_to_the_runner_with_nothing_done() -> None:
    world = World()
    world.journal.fail(APPLY, StoreUnavailable("down"))
    with pytest.raises(StoreUnavailable):
        await write_legacy([world.resolved("1", 5)], **world.handled)
    assert (world.steps(), world.row("1")) == ([], None)


async def test_what_cannot_be_read_fails_alone() -> None:
    world = World()
    bad = world.bus.add(Outgoing(RESOLVED, b"docs/9", b"{}"))
    stranger = world.resolved("8", 4, collection="unknown")
    failures = await write_legacy([bad, stranger, world.resolved("1", 5)], **world.handled)
    assert [failure.message for failure in failures] == [bad, stranger]
    assert world.outcomes() == [("1", 5, "applied")]


def test_a_write_that_is_lost_ends_the_wait_for_its_echo_and_has_the_row_read() -> None:
    world = World()
    message = world.resolved("1", 5, "body")
    reported, ended = lost_write(message, Misconfigured("permission denied"), **world.reported)
    assert (reported.topic, ended.topic, ended.key) == (WRITTEN, LOG, message.record.key)
    entry, _ = decode(
        Received(LOG, 0, 0, ended.key, ended.value, ended.headers, NOW),
        DocumentChanged,
    )
    waiting = LedgerState(version=5, written=5, pending=True, legacy_position=(1, 1, 3))
    verdict, after = fold(waiting, 6, entry)
    assert (verdict, after.pending, after.refresh) == (Verdict.READ_AGAIN, False, True)


def test_a_write_that_the_table_refused_has_its_refresh_already() -> None:
    world = World()
    (reported,) = lost_write(world.resolved("1", 5, "body"), RefusedByLegacy("too long"), **world.reported)
    assert reported.topic == WRITTEN


def test_nothing_is_reported_of_what_is_no_producers_or_cannot_be_read() -> None:
    world = World()
    others = [world.resolved("1", 5, "body", origin=origin) for origin in ("legacy", "refresh")]
    others.append(world.bus.add(Outgoing(RESOLVED, b"docs/1", b"{")))
    assert [lost_write(message, Misconfigured("no"), **world.reported) for message in others] == [[], [], []]
