"""`crossfade inspect` on the real stack: a document in each state, on both databases, and while parts are down."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connectors.telemetry import Telemetry
from migration.context import HandlerContext, now_ms
from migration.inspect.document import Document
from migration.inspect.explain import explain
from migration.inspect.read import Bounds, inspect
from migration.refresh import append_refreshes
from schemas.settings import Settings
from tests.contract.legacy_places import DATABASES, Connection
from tests.flow.site import Site, Store, eventually
from tests.flow.worker_process import settings_of

pytestmark = pytest.mark.stack
NOBODY = "127.0.0.1:1"


@pytest.fixture(params=DATABASES)
async def store(site: Site, request: pytest.FixtureRequest) -> Store:
    store = site.store("inspected", request.param)
    await becomes(store, "equal", "row-7")
    return store


def settings(store: Store) -> Settings:
    return settings_of(store.site.config, store.site.home)


async def seen(store: Store, document_id: str, **bounds: Any) -> tuple[Document, str, str]:
    """Return a document, the verdict on it, and the text of its explanation."""
    found = await inspect(settings(store), store.site.home, store.name, document_id, Bounds(**bounds))
    explanation = explain(found)
    assert found.unread == {}
    return found, explanation.verdict, " ".join(explanation.messages)


async def becomes(store: Store, verdict: str, document_id: str) -> None:
    """Wait until the verdict on a document is the given one."""

    async def holds() -> bool:
        return (await seen(store, document_id))[1] == verdict

    await eventually(holds, f"{document_id} is {verdict}")


async def test_a_document_that_is_equal_is_the_same_everywhere(store: Store) -> None:
    await store.applied("twice", text={"title": "one", "body": "The first."}, metadata={"kind": "note", "line": 1})
    await store.applied("twice", text={"title": "two", "body": "The second."}, metadata={"kind": "note", "line": 2})

    await becomes(store, "equal", "twice")
    found, _, _ = await seen(store, "twice")
    row, ledger, log = found.stores.row, found.stores.ledger, found.log
    assert row is not None
    assert row.content.text == {"title": "two", "body": "The second."}
    assert ledger is not None
    assert log is not None
    (point,) = found.stores.points
    assert {row.version, ledger.vector_version, point.version} == {ledger.state.written}
    produced = [entry for entry in log.entries if entry.origin == "producer"]
    assert [entry.version for entry in produced][-1] == ledger.state.written
    assert len(produced) == 2
    assert {entry.comes_to for entry in log.entries} == {None}
    code, output = await store.command("inspect", store.name, "twice", "--json")
    reported: dict[str, Any] = json.loads(output)
    assert (code, reported["verdict"], reported["points"][0]["payload_right"]) == (0, "equal", True)


async def test_what_capture_never_saw_is_missing_stale_or_a_ghost_and_the_reason_is_named(store: Store) -> None:
    async with store.uncaptured():
        await store.execute("insert into {t} values ('unseen', 'unseen', 'Inserted beside capture.', 'sql', 1)")
        await store.execute("update {t} set body = 'Changed beside capture.' where id = 'row-1'")
        await store.execute("delete from {t} where id = 'row-2'")
    for document_id, expected in {"unseen": "missing", "row-1": "stale", "row-2": "ghost"}.items():
        _, verdict, output = await seen(store, document_id)
        assert (document_id, verdict) == (document_id, expected)
        assert "capture did not see it" in output
        assert f"crossfade verify {store.name} --repair" in output
    code, output = await store.command("inspect", store.name, "row-1")
    assert code == 3
    assert f"{store.name}/row-1  stale" in output
    assert "Changed beside capture." in output
    ctx = HandlerContext(now_ms, store.site.opened.epochs.version, Telemetry(tracing=False))
    repaired = ["unseen", "row-1", "row-2"]
    await append_refreshes(store.ports, repaired, bus=store.site.opened.bus, ctx=ctx, source="test")
    for document_id, expected in zip(repaired, ("equal", "equal", "absent"), strict=True):
        await becomes(store, expected, document_id)


async def test_a_change_under_way_is_pending_and_says_where_it_is(store: Store) -> None:
    async with ledger_locked(store, "row-3"):
        store.submit("row-3", text={"title": "new", "body": "Under way."}, metadata={"kind": "note", "line": 3})

        await becomes(store, "pending", "row-3")
        found, _, output = await seen(store, "row-3")
        assert "A change is in flight: resolver has not finished crossfade.documents.log.v1" in output
        assert "resolver" in {each.role for each in found.waiting}
        assert found.log is not None
        assert found.log.entries[-1].comes_to == "takes effect"
    await becomes(store, "equal", "row-3")


@asynccontextmanager
async def ledger_locked(store: Store, document_id: str) -> AsyncIterator[None]:
    """Lock the ledger row of a document, so that the resolver cannot finish a change of it."""
    dsn = store.ports.settings.dsn
    assert dsn is not None
    connection = await Connection.open(store.connector, dsn)
    try:
        await connection.execute("begin")
        which = f"collection = '{store.name}' and document_id = '{document_id}'"
        await connection.fetch(f"select version from crossfade_ledger where {which} for update")
        yield
        await connection.execute("rollback")
    finally:
        await connection.close()


async def test_a_refused_change_is_shown_with_its_dead_letter(store: Store) -> None:
    cause = store.submit("row-4", text={"title": "t", "body": "Refused."}, metadata={"kind": "note", "line": 5000})
    assert (await store.written(cause, "legacy")).data["outcome"] == "dead_lettered"
    await becomes(store, "equal", "row-4")
    found, _, output = await seen(store, "row-4")
    (letter,) = found.letters
    assert (letter.source, letter.stage) == ("crossfade.documents.resolved.v1", "legacy")
    assert f"crossfade dlt replay {letter.source} --partition {letter.partition} --offset {letter.offset}" in output
    broken = store.submit("row-4", txt="not a document")
    assert (await store.written(broken, None)).data["outcome"] == "dead_lettered"
    found, _, _ = await seen(store, "row-4")
    assert {each.source for each in found.letters} == {letter.source, "crossfade.documents.submitted.v1"}


async def test_entries_that_ledger_and_points_name_are_found_however_far_back(store: Store) -> None:
    found, verdict, _ = await seen(store, "row-5", records=1)
    assert verdict == "equal"
    assert found.log is not None
    assert found.log.end - found.log.first == 1
    assert found.log.cut is not None
    assert [entry.version for entry in found.log.entries] == [found.stores.points[0].version]


async def test_places_that_are_down_are_named_and_the_others_read(store: Store, tmp_path: Path) -> None:
    whole = settings(store)

    async def without(home: Path, **changes: Any) -> tuple[Document, str]:
        found = await inspect(whole.model_copy(update=changes), home, store.name, "row-6", Bounds())
        return found, explain(found).verdict

    found, verdict = await without(store.site.home, kafka=whole.kafka.model_copy(update={"bootstrap": NOBODY}))
    assert (verdict, set(found.unread)) == ("equal", {"kafka"})
    found, verdict = await without(tmp_path)
    assert (verdict, set(found.unread)) == ("unknown", {"points"})
    assert found.stores.row is not None
    elsewhere = whole.collections[store.name].model_copy(update={"dsn": f"{scheme(store)}://u:p@{NOBODY}/none"})
    found, verdict = await without(store.site.home, collections={store.name: elsewhere})
    assert (verdict, set(found.unread)) == ("unknown", {"collection", "row", "ledger"})
    assert found.stores.points
    assert found.log is not None
    assert found.log.entries


def scheme(store: Store) -> str:
    return "postgresql" if store.connector == "postgres" else "mysql"
