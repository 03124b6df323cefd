"""The point watch finds a collection that is not the one that was written, over every adapter of `VectorStore`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import replace

import pytest

from connectors.memory.legacy import MemoryBulk
from connectors.vector_ports import VectorStore
from domain.ledger import VectorMark
from domain.points import DocumentPoints
from domain.quarantine import Reason
from domain.repair import Ends
from migration.collection import CollectionStores
from migration.quarantine import Quarantines
from migration.verify.ledger_audit import put_back
from migration.watch import points as point_watch
from migration.watch.points import PointWatch
from migration.witnesses import Written, record_witnesses
from schemas.keys import version_of
from tests.contract.vector_stores import DIMENSION, KINDS, delete, document, opened
from tests.unit.agents.parts import NAME, CountingEmbedder, World


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[VectorStore]:
    monkeypatch.setattr(point_watch, "_CONFIRM_S", 0.0)
    async with opened(request.param) as made:
        await made.prepare(NAME, DIMENSION)
        yield made


class FourNumbers(CountingEmbedder):
    @property
    def dimension(self) -> int:
        return DIMENSION


class Ground:
    """A collection over the store, and watches for as many processes as a test needs."""

    def __init__(self, store: VectorStore) -> None:
        self.store, self.world = store, World()
        self.ports = replace(self.world.ports, vectors=store, embedder=FourNumbers())

    def watch(self) -> PointWatch:
        quarantines = Quarantines({NAME: self.ports}, self.world.ctx.telemetry, {NAME: self.ports.settings})
        return PointWatch(quarantines, Written())

    async def write(self, watch: PointWatch, *documents: DocumentPoints) -> None:
        await self.store.write(NAME, documents)
        watch.written.note(NAME, [VectorMark(d.id, d.version, None, len(d.chunks), "m") for d in documents])


def reason(watch: PointWatch) -> Reason | None:
    quarantine = watch.quarantines.of(NAME)
    return None if quarantine is None else quarantine.reason


async def test_the_same_collection_is_never_quarantined(store: VectorStore) -> None:
    ground = Ground(store)
    watch = ground.watch()
    assert not await watch.look()
    await ground.write(watch, *(document(f"d{n}", n + 1) for n in range(30)))
    assert not await watch.look()
    await ground.write(watch, document("d29", 50, vectors=()), document("d28", 51))
    assert not await watch.look()
    assert not await ground.watch().look()


async def test_a_collection_deleted_under_a_worker_is_made_again_and_quarantined(store: VectorStore) -> None:
    ground = Ground(store)
    watch = ground.watch()
    await ground.write(watch, document("a", 1), document("b", 2))
    assert not await watch.look()
    await delete(store, NAME)
    assert await watch.look()
    assert reason(watch) is Reason.POINTS_REPLACED
    await ground.write(watch, document("c", 3))
    assert await store.count(NAME) == 1
    assert not await watch.look(), "it is quarantined once"


async def test_a_collection_made_again_between_runs_is_found_by_the_next_process(store: VectorStore) -> None:
    ground = Ground(store)
    watch = ground.watch()
    await ground.write(watch, *(document(f"d{n}", 0) for n in range(9)))
    assert not await watch.look()
    await delete(store, NAME)
    await store.prepare(NAME, DIMENSION)
    following = ground.watch()
    assert await following.look()
    assert reason(following) is Reason.POINTS_REPLACED


async def test_an_older_state_and_another_collection_in_its_place_are_found(store: VectorStore) -> None:
    ground = Ground(store)
    watch = ground.watch()
    old = [document(f"d{n}", n + 1) for n in range(30)]
    await ground.write(watch, *old)
    assert not await watch.look()
    await ground.write(watch, document("d0", 90))
    assert not await watch.look()
    # This is how a snapshot from before the last change looks, or a copy of it behind an alias.
    await delete(store, NAME)
    await store.prepare(NAME, DIMENSION)
    await store.write(NAME, old)
    assert await watch.look()
    assert reason(watch) is Reason.POINTS_REPLACED


async def test_what_was_proved_equal_again_is_known_by_other_points(store: VectorStore) -> None:
    ground = Ground(store)
    watch = ground.watch()
    await ground.write(watch, document("a", 1), document("b", 2))
    assert not await watch.look()
    await delete(store, NAME)
    assert await watch.look()
    # This is what a recapture does at its end. The documents are gone from the table by then.
    await record_witnesses(ground.ports.ledger, NAME, ())
    await ground.ports.ledger.set_meta(f"halted.{NAME}", 0)
    assert not await watch.look()
    await watch.quarantines.follow()
    assert reason(watch) is None
    assert not await watch.look()
    assert not await ground.watch().look()


@pytest.mark.parametrize("seen_with_it", [True, False])
async def test_a_point_that_a_repair_removes_is_not_missed(store: VectorStore, seen_with_it: bool) -> None:
    ground = Ground(store)
    watch = ground.watch()
    await ground.write(watch, *(document(f"d{n}", n + 1) for n in range(9)), document("damaged", 20))
    assert not await watch.look()
    beyond = version_of(5, 0)
    await store.write(NAME, [document("damaged", beyond)])
    if seen_with_it:
        watch.written.last.clear()
        known = watch.known[NAME]
        while beyond not in {one.version for one in known.witnesses}:  # a sample is random
            known.witnesses, known.sample_due_s = (), 0.0
            assert not await watch.look()
    ledger = ground.ports.ledger
    await ledger.vectors_written([VectorMark("damaged", 20, None, 1, "m")])
    stores = CollectionStores(NAME, ground.ports.table, MemoryBulk(ground.world.legacy), ledger, store, DIMENSION)

    async def ends_of(ids: Collection[str]) -> Mapping[str, Ends]:
        return {one: Ends(100, (), {}) for one in ids}

    await put_back(stores, ["damaged"], ends_of, {})
    assert await store.count(NAME) == 9
    assert not await watch.look()
    assert not await ground.watch().look()
    await delete(store, NAME)
    await store.prepare(NAME, DIMENSION)
    assert await watch.look(), "the other points are missed all the same"
