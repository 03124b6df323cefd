"""A refresh entry has the current row, and the captured position from before the row was read."""

from __future__ import annotations

from typing import Any

from connectors.telemetry import Trace
from domain.fold import LedgerState
from domain.ledger import LedgerRow
from domain.legacy import LegacyRow
from migration.refresh import append_refreshes
from schemas.content import content_hash
from schemas.documents import DocumentChanged, Evidence
from tests.unit.agents.parts import NAME, NOW, TRACEPARENT, World, content, too_large
from topics.catalogue import LOG


def with_rows(**positions: int) -> World:
    world = World()
    for name, lsn in positions.items():
        world.legacy.put(LegacyRow(name, 40, content(f"text of {name}")))
        world.legacy.ledger_rows[name] = LedgerRow(LedgerState(version=50, legacy_position=(1, 1, lsn)))
    return world


async def append(world: World, *ids: str, **other: Any) -> list[DocumentChanged]:
    await append_refreshes(world.ports, ids, bus=world.bus, ctx=world.ctx, source="test", **other)
    return world.bus.events(LOG, DocumentChanged)


async def test_the_position_is_read_before_the_row() -> None:
    """In the other order, a change between the two reads would be taken for one that the row already has."""
    world = with_rows(a=7)
    await append(world, "a")
    assert world.steps() == ["ledger.read", "table.rows", f"publish {LOG}"]


async def test_an_entry_holds_the_row_its_version_and_the_ledgers_position() -> None:
    (entry,) = await append(with_rows(a=7), "a")
    assert entry == DocumentChanged(
        collection=NAME,
        id="a",
        origin="refresh",
        content=content("text of a"),
        content_hash=content_hash(content("text of a")),
        before_version=40,
        after_version=40,
        position=(1, 1, 7),
        occurred_at_ms=NOW,
    )


async def test_a_row_that_is_gone_is_a_deletion_and_an_unknown_document_has_no_position() -> None:
    world = with_rows(a=7)
    world.legacy.drop("a")
    gone, unknown = await append(world, "a", "b")
    assert (gone.deleted, gone.content, gone.position) == (True, None, (1, 1, 7))
    assert (unknown.deleted, unknown.content, unknown.position) == (True, None, ())


async def test_only_the_refused_document_carries_the_version_that_was_refused() -> None:
    first, second = await append(with_rows(a=7, b=8), "a", "b", rejects={"b": 50})
    assert (first.rejects, second.rejects) == (0, 50)


async def test_an_entry_stays_in_the_trace_that_asked_for_it() -> None:
    world = with_rows(a=7, b=8)
    await append(world, "a", "b", traces={"a": Trace(incoming=TRACEPARENT)})
    first, second = world.bus.inner.records(LOG)
    assert (first.key, first.header("traceparent")) == (b"docs/a", TRACEPARENT)
    assert (second.key, second.header("traceparent")) == (b"docs/b", None)


async def test_nothing_is_asked_for_no_document() -> None:
    world = World()
    assert await append(world) == []
    assert world.steps() == []


async def test_a_row_that_the_log_does_not_take_holds_up_no_other_and_is_left_to_the_resolver() -> None:
    world = with_rows(a=7, b=8, c=9, d=10)
    world.legacy.write_directly("b", too_large())
    evidence = {"b": Evidence(ends=50)}
    entries = {entry.id: entry for entry in await append(world, *"abcd", evidence=evidence)}
    assert set(entries) == {"a", "b", "c", "d"}
    assert [entries[one].content for one in "acd"] == [content(f"text of {one}") for one in "acd"]
    assert (entries["b"].incomplete, entries["b"].deleted, entries["b"].content) == (True, False, None)
    assert (entries["b"].position, entries["b"].evidence) == ((1, 1, 8), evidence["b"])
