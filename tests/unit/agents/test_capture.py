"""Captured row changes are appended to the log as they are. Other records from Debezium are skipped."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from agents.batch import Message
from agents.capture import capture
from domain.quarantine import Reason
from schemas.cloudevents import InvalidEvent
from schemas.documents import DocumentChanged
from schemas.records import Outgoing
from tests.unit.agents.parts import CAPTURE, NAME, NOW, ORIGIN, Crash, World, content
from topics.catalogue import LOG


def change(world: World, lsn: int, before: Any, after: Any, operation: str = "u", **other: Any) -> Message:
    source = {"connector": "postgresql", "sequence": f'["{lsn}","{lsn + 1}"]', "snapshot": "false", "ts_ms": NOW - 70}
    source |= ORIGIN | other
    value = {"op": operation, "before": before, "after": after, "source": source, "ts_ms": NOW}
    return world.bus.add(Outgoing(CAPTURE, b'{"id":"1"}', orjson.dumps(value)))


def row(body: str, version: int | None = None, year: int | None = None) -> dict[str, Any]:
    return {"id": "1", "body": body, "year": year, "crossfade_version": version}


def ports(world: World) -> dict[str, Any]:
    return {"tables": {CAPTURE: world.ports}, "bus": world.bus, "ctx": world.ctx}


async def test_a_row_change_becomes_an_entry_with_its_position_in_the_databases_log() -> None:
    world = World()
    message = change(world, 8, row("old", 3), row("new", 3, 2001))
    assert await capture([message], **ports(world)) == []
    (entry,) = world.bus.events(LOG, DocumentChanged)
    assert (entry.id, entry.origin, entry.content, entry.deleted) == ("1", "legacy", content("new", year=2001), False)
    assert (entry.before_version, entry.after_version, entry.position) == (3, 3, (1, 1, 8, 9))
    assert (entry.occurred_at_ms, entry.cause) == (NOW - 70, "")
    (record,) = world.bus.inner.records(LOG)
    assert (record.key, record.header("ce_id")) == (f"{NAME}/1".encode(), f"{CAPTURE}/0/0")


async def test_tombstones_and_heartbeats_append_nothing() -> None:
    world = World()
    tombstone = world.bus.add(Outgoing(CAPTURE, b'{"id":"1"}', None))
    heartbeat = world.bus.add(Outgoing(CAPTURE, b"{}", b'{"ts_ms":1}'))
    assert await capture([tombstone, heartbeat], **ports(world)) == []
    assert world.steps() == []


async def test_a_change_that_cannot_be_read_fails_alone() -> None:
    world = World()
    truncated = change(world, 1, None, None, "t")
    deleted = change(world, 2, row("old"), None, "d")
    (failure,) = await capture([truncated, deleted], **ports(world))
    assert failure.message is truncated
    assert isinstance(failure.error, InvalidEvent)
    assert [entry.deleted for entry in world.bus.events(LOG, DocumentChanged)] == [True]


async def test_a_row_that_is_older_than_a_configured_column_is_read_again_and_one_without_it_for_good_stops() -> None:
    world = World()
    older = row("old")
    del older["year"]
    assert await capture([change(world, 8, older, older)], **ports(world)) == []
    (entry,) = world.bus.events(LOG, DocumentChanged)
    assert (entry.incomplete, entry.content) == (True, None)
    gone = row("old")
    del gone["body"], gone["crossfade_version"]
    assert (await stops(world, [change(world, 9, gone, gone)]))[1] is Reason.UNREADABLE


@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_and_a_second_delivery_append_the_same_entry(after: bool) -> None:
    world = World()
    batch = [change(world, 8, row("old"), row("new"))]
    world.journal.fail(f"publish {LOG}", Crash(), after=after)
    with pytest.raises(Crash):
        await capture(batch, **ports(world))
    await capture(batch, **ports(world))
    entries = world.bus.events(LOG, DocumentChanged)
    assert len(entries) == (2 if after else 1)
    assert len({entry.position for entry in entries}) == 1


async def test_a_change_after_which_none_can_be_read_stops_its_collection_and_publishes_nothing() -> None:
    world = World()
    batch = [change(world, 1, row("old"), row("new")), change(world, 2, None, None, "t")]
    output = f"{CAPTURE}/0/1: the table was truncated: the documents that are gone are not named"
    assert await stops(world, batch) == (NAME, Reason.UNREADABLE, output)
    assert world.bus.events(LOG, DocumentChanged) == []


@pytest.mark.parametrize(
    ("field", "value"), [("db", "globex"), ("schema", "archive"), ("table", "docs_old"), ("name", "another.prefix")]
)
async def test_a_change_of_another_database_schema_table_or_connector_stops_the_collection_and_is_not_taken(
    field: str, value: str
) -> None:
    world = World()
    batch = [change(world, 1, row("old"), row("new")), change(world, 2, row("old"), row("new"), **{field: value})]
    name, reason, output = await stops(world, batch)
    assert (name, reason) == (NAME, Reason.FOREIGN_CHANGE)
    assert f"{field} {value!r} instead of {ORIGIN[field]!r}" in output
    assert world.bus.events(LOG, DocumentChanged) == []


async def stops(world: World, batch: list[Message]) -> tuple[str, Reason, str]:
    """Return the arguments with which a batch quarantines its collection. `capture` does not return after that."""
    stopped: list[tuple[str, Reason, str]] = []
    never = asyncio.Event()

    async def unreadable(name: str, reason: Reason, detail: str) -> None:
        stopped.append((name, reason, detail))
        await never.wait()

    capturing = asyncio.create_task(capture(batch, unreadable=unreadable, **ports(world)))
    while not stopped:  # noqa: ASYNC110  # gives the task its turns
        await asyncio.sleep(0)
    assert not capturing.done()
    capturing.cancel()
    return stopped[0]


async def test_a_text_that_was_cut_within_a_character_stops_nothing_and_has_its_row_read_again() -> None:
    world = World()

    async def unreadable(name: str, reason: Reason, detail: str) -> None:
        raise AssertionError(name, reason, detail)

    message = change(world, 1, row("old"), row("CUT"))
    value = (message.record.value or b"").replace(b"CUT", b"long \\ud83d")
    message = Message(message.record._replace(value=value))
    batch = [message, change(world, 2, row("old"), row("new"))]
    assert await capture(batch, unreadable=unreadable, **ports(world)) == []
    entries = world.bus.events(LOG, DocumentChanged)
    assert [(entry.incomplete, entry.content) for entry in entries] == [(True, None), (False, content("new"))]


async def test_a_row_that_is_wrong_by_itself_stops_nothing() -> None:
    world = World()

    async def unreadable(name: str, reason: Reason, detail: str) -> None:
        raise AssertionError(name, reason, detail)

    moved = change(world, 1, {**row("old"), "id": "2"}, row("new"))
    (failure,) = await capture([moved], unreadable=unreadable, **ports(world))
    assert "changed the key" in str(failure.error)
