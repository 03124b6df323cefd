"""What `migrate status` and `status` read about collections in real databases, also while some parts do not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from connectors.sql.connector import LegacyConnector
from connectors.sql.databases import open_legacy
from domain.quarantine import Reason
from migration.backfill.pause import set_paused
from migration.observe import Observer, stops
from migration.preflight.tables import prepare_topics
from migration.state import CollectionState
from migration.status import Progress
from schemas.settings import Kafka, Settings
from schemas.tasks import BACKFILL, CONTROL, HEADER, PROOF, BackfillState, Control, ProofState, RangeState
from stack.layout import StackAddresses
from tests.contract.legacy_places import DATABASES, DOCUMENTS, Place, fresh_place

pytestmark = pytest.mark.stack
NOBODY = "127.0.0.1:1"


@dataclass
class Rig:
    """A collection in a database of its own. Its table exists."""

    place: Place
    settings: Settings

    @asynccontextmanager
    async def legacy(self) -> AsyncIterator[LegacyConnector]:
        legacy = await open_legacy("documents", self.settings.collections["documents"], self.place.dsn)
        try:
            await legacy.prepare()
            yield legacy
        finally:
            await legacy.close()

    async def look(self, **kafka: str) -> Progress:
        changed = self.settings.kafka.model_copy(update=kafka)
        observer = Observer(self.settings.model_copy(update={"kafka": changed}), now_s=lambda: 1000.0)
        try:
            (found,) = await observer.look(["documents"])
        finally:
            await observer.close()
        return found


@pytest.fixture(params=DATABASES)
async def rig(request: pytest.FixtureRequest, stack: StackAddresses) -> AsyncIterator[Rig]:
    async with fresh_place(request.param, stack) as place:
        await place.execute(DOCUMENTS[place.connector])
        kafka = Kafka(bootstrap=stack.kafka, connect=stack.connect, capture_prefix=f"test.{place.schema}")
        collection = place.collection(dsn=place.dsn)
        yield Rig(place, Settings(kafka=kafka, collections={"documents": collection}))


async def test_a_collection_that_no_worker_has_seen_is_shown_as_such(rig: Rig) -> None:
    found = await rig.look()
    assert "no worker has run" in found.unanswered["database"]
    assert (found.quarantine, found.backfill, found.proof) == (None, None, None)
    tables = f"SELECT count(*) FROM information_schema.tables WHERE table_schema = '{rig.place.schema}'"
    assert await rig.place.fetch(tables) == [(1,)], "a look makes no tables"


async def test_states_of_tasks_and_stops_are_read(rig: Rig) -> None:
    backfill = BackfillState(
        started_at_ms=0, updated_at_ms=999_000, model="m", range_rows=10, rows_estimated=100, rows=40, ranges=3
    )
    proof = ProofState(verdict="equal", started_at_ms=0, updated_at_ms=998_000, oldest_at_ms=900_000)
    async with rig.legacy() as legacy:
        ranges = {n: RangeState(after=None, upto=None, done=n == 1).model_dump_json().encode() for n in (1, 2, 3)}
        await legacy.tasks.save(BACKFILL, {HEADER: backfill.model_dump_json().encode(), **ranges})
        await legacy.tasks.save(PROOF, {HEADER: proof.model_dump_json().encode()})
        found = await rig.look()
        assert found.backfill is not None
        assert (found.backfill.state, found.backfill.ranges_done, found.backfill.moved_s) == (backfill, 1, 1.0)
        assert found.backfill.rows_left == 60
        assert found.proof is not None
        assert (found.proof.state, found.proof.age_s) == (proof, 100.0)
        assert (found.quarantine, found.wrong) == (None, False)
        await CollectionState(legacy.ledger, "documents").set_reason(Reason.CAPTURE_LOST)
        found = await rig.look()
        assert found.quarantine is not None
        assert (found.quarantine.reason, found.quarantine.remedy) == (
            Reason.CAPTURE_LOST,
            "crossfade recapture documents",
        )
        assert found.wrong
        (stopped,) = await stops(rig.settings)
        assert (stopped.quarantine, stopped.state) == (found.quarantine, "quarantined")


async def test_a_part_that_does_not_answer_is_named_and_the_others_are_shown(rig: Rig) -> None:
    async with rig.legacy():
        await prepare_topics(rig.settings, lambda _: None)
        found = await rig.look(bootstrap=NOBODY, connect=f"http://{NOBODY}")
        assert set(found.unanswered) == {"kafka", "capture"}
        assert (found.lags, found.capture) == (None, None)
        elsewhere = rig.place.dsn.replace(f":{rig.place.dsn.rpartition(':')[2].partition('/')[0]}/", ":1/")
        gone = rig.settings.collections["documents"].model_copy(update={"dsn": elsewhere})
        rig.settings = rig.settings.model_copy(update={"collections": {"documents": gone}})
        found = await rig.look()
        assert "database" in found.unanswered
        assert "kafka" not in found.unanswered
        (unknown,) = await stops(rig.settings)
        assert (set(unknown.unanswered), unknown.state) == ({"database"}, "unknown")


async def test_a_connector_that_was_never_made_is_missing(rig: Rig) -> None:
    async with rig.legacy() as legacy:
        await legacy.ledger.set_meta("source_epoch.documents", 77)
        found = await rig.look()
    assert found.capture is not None
    assert (found.capture.state, found.capture.position) == ("MISSING", None)
    assert (found.state, found.wrong) == ("not captured", True)


async def test_pause_and_resume_are_what_a_backfill_reads(rig: Rig) -> None:
    async def asked() -> Control:
        async with rig.legacy() as legacy:
            return Control.model_validate_json((await legacy.tasks.read(BACKFILL))[CONTROL])

    collection = rig.settings.collections["documents"]
    assert await set_paused("documents", collection, rig.place.dsn, paused=True) is None
    assert await asked() == Control(paused=True)
    assert await set_paused("documents", collection, rig.place.dsn, paused=False) is None
    assert await asked() == Control(paused=False)
