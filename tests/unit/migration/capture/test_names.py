"""The names of captured collections: no source epoch is used twice, and no two databases share a name."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from random import Random
from typing import Any, cast

import pytest

from connectors.errors import StoreUnavailable
from connectors.memory.legacy import MemoryLedger, MemoryLegacy, MemoryTable
from connectors.ports import Ledger
from connectors.sql.database_identity import DatabaseIdentity
from domain.legacy import TableDescription
from domain.quarantine import Reason
from migration.capture.connectors import groups
from migration.capture.names import Database, assign_captures, conflicts
from migration.collection import CollectionPorts
from migration.epochs import Epochs
from migration.opener import Opened
from migration.state import CollectionState
from schemas.settings import Collection, Settings
from topics.captures import Capture

NOTHING: Any = None
SETTINGS = Settings(collections={})


class Site:
    """Databases of one server, each with its own ledger, and the collections that are configured in them."""

    def __init__(self) -> None:
        self.meta: dict[str, MemoryLegacy] = {}
        self.topics: list[str] = []

    def collection(self, name: str, database: str = "1", **settings: Any) -> tuple[str, CollectionPorts, str]:
        place = settings.pop("place", f"public.{name}")
        description = TableDescription(("id",), ("body",), {}, None, None, place=place)
        kept = self.meta.setdefault(f"{database}/{settings.pop('space', '')}", MemoryLegacy("any", description))
        table = MemoryTable(MemoryLegacy(name, description))
        values = {"dsn": f"postgresql://app@h/{database}", "table": name, "key": ("id",), "text": ("body",)} | settings
        ports = CollectionPorts(
            name,
            table,
            NOTHING,
            MemoryLedger(kept),
            NOTHING,
            0,
            settings=Collection(**values),
            embedder=NOTHING,
            text_search=NOTHING,
        )
        return name, ports, database

    async def configured(
        self, *collections: tuple[str, CollectionPorts, str], roles: dict[str, str] | None = None
    ) -> dict[str, Capture]:
        """Start a worker with these collections; return the capture of each."""
        ports = {}
        for name, each, _ in collections:
            ports[name] = replace(
                each, capture=await CollectionState(each.ledger, name).capture(SETTINGS.kafka, each.settings)
            )
        opened = Opened(SETTINGS, NOTHING, NOTHING, ports, Epochs(), AsyncExitStack())
        await assign_captures(opened, databases(collections, roles or {}), self.topics, lambda _: None)
        self.opened = opened.collections
        found = {name: each.capture for name, each in opened.collections.items() if each.capture is not None}
        self.topics += [capture.topic for capture in found.values()]
        return found


def databases(collections: tuple[tuple[str, CollectionPorts, str], ...], roles: dict[str, str]) -> list[Database]:
    found: dict[str, dict[str, DatabaseIdentity]] = {}
    for name, _, database in collections:
        identity = DatabaseIdentity("postgres", "7001", database, roles.get(name, "app"), "7001 since noon")
        found.setdefault(str(identity.key), {})[name] = identity
    return [Database(key, tuple(members), members) for key, members in found.items()]


async def test_a_removed_collections_epoch_is_not_that_of_the_next_one() -> None:
    site = Site()
    a, b, c = (site.collection(name) for name in "abc")
    await site.configured(a)
    with_b = await site.configured(a, b)
    with_c = await site.configured(a, c)
    assert [with_b["b"].epoch, with_c["c"].epoch] == [2, 3]
    assert with_c["a"] == with_b["a"]
    assert len({capture.connector for capture in (with_b | with_c).values()}) == 3


@pytest.mark.parametrize("remembered", ["record", "topics"])
async def test_an_epoch_is_remembered_by_its_record_or_by_its_topics(remembered: str) -> None:
    """A table in another schema has its own `crossfade_meta`, which knows nothing of the others."""
    site = Site()
    await site.configured(site.collection("a", space="one"))
    if remembered == "record":
        site.topics.clear()
    later = site.collection("b", space="one" if remembered == "record" else "two")
    assert (await site.configured(later))["b"].epoch == 2


async def test_a_collection_that_was_removed_comes_back_with_its_own_names() -> None:
    site = Site()
    a, b = site.collection("a"), site.collection("b")
    before = await site.configured(a, b)
    await site.configured(a)
    assert await site.configured(a, b) == before


async def test_a_renamed_collection_does_not_take_over_the_connector_of_its_old_name() -> None:
    site = Site()
    before = await site.configured(site.collection("old", place="public.t"))
    after = await site.configured(site.collection("new", place="public.t"))
    assert after["new"].epoch == 2
    assert after["new"].connector != before["old"].connector


async def test_what_was_captured_before_names_were_recorded_keeps_them_and_others_get_new_ones() -> None:
    site = Site()
    a, b = site.collection("a"), site.collection("b", database="2")
    await a[1].ledger.set_meta("source_epoch.a", 2)
    found = await site.configured(a, b)
    assert found["a"].prefix == "crossfade.capture.e2"
    moved = (a[0], replace(a[1], settings=a[1].settings.model_copy(update={"dsn": "postgresql://x@other/1"})), a[2])
    assert await site.configured(moved, b) == found


async def test_two_roles_of_one_database_have_a_connector_each_and_one_role_by_two_addresses_has_one() -> None:
    site = Site()
    a, b = site.collection("a"), site.collection("b", dsn="postgresql://app@alias/1")
    found = await site.configured(a, b)
    assert found["a"].connector == found["b"].connector
    (group,) = groups(site.opened)
    assert group.dsn == a[1].settings.dsn
    site = Site()
    found = await site.configured(site.collection("a"), site.collection("b"), roles={"b": "reader"})
    assert [found["a"].epoch, found["b"].epoch] == [1, 2]


async def test_the_same_table_of_two_databases_is_captured_apart() -> None:
    site = Site()
    found = await site.configured(
        site.collection("acme", "1", place="public.articles"), site.collection("globex", "2", place="public.articles")
    )
    assert found["acme"].topic != found["globex"].topic
    assert found["acme"].connector != found["globex"].connector
    assert len(groups(site.opened)) == 2


async def test_a_topic_that_two_databases_share_since_before_stops_both() -> None:
    site = Site()
    acme = site.collection("acme", "1", table="articles", place="public.articles")
    globex = site.collection("globex", "2", table="articles", place="public.articles")
    for name, ports, _ in (acme, globex):
        await ports.ledger.set_meta(f"source_epoch.{name}", 1)
    await site.configured(acme, globex)
    found = conflicts(site.opened, databases((acme, globex), {}))
    assert {(quarantine.collection, quarantine.reason) for quarantine in found} == {
        ("acme", Reason.FOREIGN_CHANGE),
        ("globex", Reason.FOREIGN_CHANGE),
    }


async def test_one_table_in_two_collections_is_taken_by_the_first_alone() -> None:
    site = Site()
    one, two = (site.collection(name, place="public.t") for name in ("one", "two"))
    await site.configured(one, two)
    (found,) = conflicts(site.opened, databases((one, two), {}))
    assert (found.collection, found.reason) == ("two", Reason.TABLE)
    assert found.detail == "the table public.t is that of the collection one"


async def test_a_copy_of_a_server_that_runs_too_is_not_taken_for_it() -> None:
    site = Site()
    one, two = site.collection("one"), site.collection("two")
    await site.configured(one, two)
    (database,) = databases((one, two), {})
    copy = replace(database.identities["two"], running="7001 since one")
    database = replace(database, identities={**database.identities, "two": copy})
    (found,) = conflicts(site.opened, [database])
    assert (found.collection, found.reason) == ("two", Reason.TABLE)


async def test_a_name_that_now_means_another_table_stops_its_collection() -> None:
    site = Site()
    await site.configured(site.collection("a", place="public.a"))
    moved = site.collection("a", place="app.a")
    await site.configured(moved)
    (found,) = conflicts(site.opened, databases((moved,), {}))
    assert (found.reason, found.detail) == (
        Reason.TABLE_REPLACED,
        "public.a is captured, the configuration means app.a",
    )


class Interleaved:
    """A ledger that lets other tasks run before and after each call, as a database does. A seed decides how long."""

    def __init__(self, inner: Ledger, chance: Random) -> None:
        self._inner, self._chance = inner, chance

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any) -> Any:
            for _ in range(self._chance.randrange(3)):
                await asyncio.sleep(0)
            answer = await getattr(self._inner, name)(*arguments)
            for _ in range(self._chance.randrange(3)):
                await asyncio.sleep(0)
            return answer

        return call


@pytest.mark.parametrize("seed", range(200))
async def test_workers_that_start_together_end_with_one_connector_that_both_know(seed: int) -> None:
    site, chance = Site(), Random(seed)
    collections = [site.collection(name, space=chance.choice(["", "another"])) for name in "abc"]
    workers = []
    for _ in range(2):
        ports = {n: replace(p, ledger=cast(Ledger, Interleaved(p.ledger, chance))) for n, p, _ in collections}
        workers.append(Opened(SETTINGS, NOTHING, NOTHING, ports, Epochs(), AsyncExitStack()))
    found = databases(tuple(collections), {})
    assert await asyncio.gather(*(assign_captures(w, found, [], lambda _: None) for w in workers)) == [{}, {}]
    one, other = ({name: ports.capture for name, ports in w.collections.items()} for w in workers)
    assert (
        one
        == other
        == {n: await CollectionState(p.ledger, n).capture(SETTINGS.kafka, p.settings) for n, p, _ in collections}
    )
    assert len({capture.connector for capture in one.values() if capture is not None}) == 1


async def test_a_worker_that_others_were_faster_than_joins_them_with_what_they_know_alone() -> None:
    site = Site()
    a, b, c = (site.collection(name) for name in "abc")
    late = Opened(SETTINGS, NOTHING, NOTHING, {n: p for n, p, _ in (a, b, c)}, Epochs(), AsyncExitStack())
    first = await site.configured(a, b)
    await assign_captures(late, databases((a, b, c), {}), [], lambda _: None)
    found = {name: ports.capture for name, ports in late.collections.items()}
    assert {name: found[name] for name in "ab"} == first
    # A faster worker may have created the connector without `c`, so the connector would take no snapshot of it.
    assert found["c"] not in (None, *first.values())
    assert found["c"] is not None
    assert found["c"].connector != first["a"].connector


async def test_a_database_that_is_away_keeps_no_other_from_being_captured() -> None:
    site = Site()
    a, b = site.collection("a", "1"), site.collection("b", "2")
    error = StoreUnavailable("down")

    class Down(MemoryLedger):
        async def advance(self, name: str) -> int:
            raise error

    away = (b[0], replace(b[1], ledger=Down(site.meta["2/"])), b[2])
    opened = Opened(SETTINGS, NOTHING, NOTHING, {n: p for n, p, _ in (away, a)}, Epochs(), AsyncExitStack())
    assert await assign_captures(opened, databases((away, a), {}), [], lambda _: None) == {"b": error}
    assert opened.collections["a"].capture is not None
    assert opened.collections["b"].capture is None
