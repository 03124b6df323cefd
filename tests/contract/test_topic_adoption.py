"""An adoption that was cut short continues with what it found at first, and leaves no collection parked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest

from connectors.errors import StoreUnavailable, TaskFailed
from connectors.kafka.admin import delete_topics
from connectors.kafka.bus import AiokafkaBus
from connectors.kafka.cursors import KafkaCursors
from connectors.kafka.groups import set_offsets
from connectors.kafka.offsets import KafkaOffsets
from connectors.memory.legacy import MemoryLedger, MemoryLegacy
from connectors.ports import Ledger
from domain.legacy import TableDescription
from migration import topic_adoption
from migration.epochs import REPLACED, note_replaced, record_mark
from migration.state import CollectionState
from migration.topic_adoption import Adopter, Book
from migration.watch import topics as topic_watch
from migration.watch.topics import TopicWatch
from schemas.dead_letters import SUFFIX
from schemas.records import Outgoing
from schemas.settings import Collection, Kafka, Settings
from stack.layout import StackAddresses
from tests.contract.consuming import make_topic
from tests.contract.legacy_places import fresh_place
from topics.catalogue import CATALOGUE, EMBEDDED, LOG, RESOLVED, SUBMITTED, group_of

pytestmark = pytest.mark.stack
RECORDS = 4


class Interrupted(Exception):
    """Raised at a failpoint to end an adoption."""


@dataclass
class Place:
    """Working topics of the test's own, each with some records, a collection that knows them, and their adopter."""

    bootstrap: str
    topics: dict[str, str]
    name: str
    ledger: Ledger
    adopter: Adopter

    async def known_otherwise(self, topic: str, *, cluster: str = "", topic_id: str = "") -> None:
        """Record every topic with its real identity, except one, which gets another identity."""
        for name, look in (await self.adopter.watch.look(topic_watch.READERS)).items():
            mark = look.mark
            if name == self.topics[topic]:
                mark = replace(mark, cluster=cluster or mark.cluster, topic=topic_id or mark.topic)
            await record_mark(self.ledger, name, mark)

    async def adopt(self) -> None:
        await self.adopter.carry_out(await self.adopter.plan(), lambda _: None)

    async def begins(self, role: str, topic: str) -> int | None:
        """Return the offset at which a role continues."""
        async with KafkaOffsets(self.bootstrap) as offsets:
            return (await offsets.committed(group_of(role))).get((self.topics[topic], 0))


@pytest.fixture
async def place(stack: StackAddresses, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    prefix, kafka = f"test.adoption.{uuid4().hex[:8]}", Kafka(bootstrap=stack.kafka)
    topics = {name: f"{prefix}.{number}" for number, name in enumerate((SUBMITTED, LOG, RESOLVED, EMBEDDED))}
    bus = AiokafkaBus(kafka)
    for topic in topics.values():
        await make_topic(stack.kafka, topic, 1, 1024 * 1024)
        await bus.publish([Outgoing(topic, b"docs/1", b"{}") for _ in range(RECORDS)])
    await bus.close()
    readers = {topics[topic]: roles for topic, roles in topic_watch.READERS.items()}
    for module in (topic_adoption, topic_watch):
        monkeypatch.setattr(module, "READERS", readers)
    for name in ("SUBMITTED", "LOG", "RESOLVED", "EMBEDDED"):
        monkeypatch.setattr(topic_adoption, name, topics[getattr(topic_adoption, name)])
    own = tuple(replace(topic, name=topics[topic.name]) for topic in CATALOGUE if topic.name in topics)
    monkeypatch.setattr(topic_adoption, "CATALOGUE", own)
    name = f"docs{uuid4().hex[:8]}"
    collection = Collection(dsn="postgresql://app@localhost/shop", table="public.docs", key=("id",), text=("body",))
    ledger = MemoryLedger(MemoryLegacy(name, TableDescription(("id",), ("body",), {}, None, None)))
    books = {name: Book(name, collection, ledger, None)}
    watch = TopicWatch(kafka, books)
    settings = Settings(kafka=kafka, collections={name: collection})
    yield Place(stack.kafka, topics, name, ledger, Adopter(settings, books, watch))
    await watch.close()
    await delete_topics(stack.kafka, [topic + suffix for topic in topics.values() for suffix in ("", SUFFIX)])


async def cut_short(place: Place, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run an adoption up to a failpoint."""

    def passing(name: str) -> None:
        if name == at:
            raise Interrupted

    with monkeypatch.context() as patched:
        patched.setattr(topic_adoption, "passing", passing)
        with pytest.raises(Interrupted):
            await place.adopt()


@pytest.mark.parametrize("at", ["adoption.before_offsets", "adoption.before_marks", "adoption.before_release"])
async def test_a_copied_topic_is_not_read_again_by_an_adoption_that_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Once the identities are recorded, only what was noted at first shows that it is a copy."""
    await set_offsets(place.bootstrap, group_of("intake"), {(place.topics[SUBMITTED], 0): 3})
    await place.known_otherwise(SUBMITTED, cluster="another")
    await cut_short(place, at, monkeypatch)
    plan = await place.adopter.plan()
    assert plan.moved == {place.topics[SUBMITTED]}
    await place.adopt()
    assert await place.begins("intake", SUBMITTED) == 3
    assert await place.ledger.identity(REPLACED) == ""
    assert not await CollectionState(place.ledger, place.name).reason()


async def test_a_topic_made_again_is_read_from_its_beginning_and_nothing_stays_parked_in_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The offset at which a lane would continue belongs to the topic that was there before."""
    at = (place.topics[LOG], 0)
    await set_offsets(place.bootstrap, group_of("resolver"), {at: RECORDS})
    cursors = KafkaCursors(place.bootstrap, "resolver")
    try:
        await cursors.park(place.name, {at: 2})
        await place.known_otherwise(LOG, topic_id="made before")
        await cut_short(place, "adoption.before_marks", monkeypatch)
        await place.adopt()
        assert await cursors.load([place.name]) == {}
        assert await place.begins("resolver", LOG) == 0
    finally:
        await cursors.close()


async def test_collections_that_cannot_be_opened_hold_up_no_adoption(place: Place, stack: StackAddresses) -> None:
    run = uuid4().hex[:8]
    good, missing, away = (f"{name}{run}" for name in ("good", "missing", "away"))
    async with fresh_place("postgres", stack) as home:
        await home.execute(
            "CREATE TABLE {t} (id int PRIMARY KEY, title text, body text, crossfade_version bigint);"
            "ALTER TABLE {t} REPLICA IDENTITY FULL"
        )
        own = home.collection(dsn=home.dsn, metadata=(), tenant=None)
        collections = {
            away: own.model_copy(update={"dsn": "postgresql://app:secret@127.0.0.1:1/shop"}),
            good: own,
            missing: own.model_copy(update={"table": f"{home.schema}.nothing"}),
        }
        settings = Settings(kafka=Kafka(bootstrap=stack.kafka), collections=collections)
        cursors = KafkaCursors(stack.kafka, "resolver")
        try:
            await cursors.park(away, {(place.topics[LOG], 0): 2})
            async with topic_adoption.opened(settings) as adopter:
                assert set(adopter.left_out) == {missing, away}
                assert "secret" not in str(adopter.left_out)
                ours = replace(place, name=good, ledger=adopter.books[good].ledger, adopter=adopter)
                await ours.known_otherwise(LOG, topic_id="made before")
                await ours.adopt()
                assert await ours.begins("resolver", LOG) == 0
            assert await cursors.load([away]) == {}, "its place is one of the topic that was there before"
        finally:
            await cursors.close()
        del collections[good]
        with pytest.raises(StoreUnavailable, match="there is no table"):
            async with topic_adoption.opened(Settings(kafka=settings.kafka, collections=collections)):
                pass


@pytest.mark.parametrize("lost", [False, True])
async def test_a_database_that_was_left_out_joins_and_nothing_is_taken_again(place: Place, lost: bool) -> None:
    """This does not hold if the topic was replaced again for the databases that were adopted before."""
    (book,) = place.adopter.books.values()
    late = f"late{uuid4().hex[:8]}"
    ledger = MemoryLedger(MemoryLegacy(late, TableDescription(("id",), ("body",), {}, None, None)))
    elsewhere = book.settings.model_copy(update={"dsn": "postgresql://app@localhost/elsewhere"})
    await place.known_otherwise(SUBMITTED, topic_id="made before")
    await replace(place, ledger=ledger).known_otherwise(SUBMITTED, topic_id="made before")
    await place.adopt()
    assert (await place.ledger.get_meta("documents.submitted.epoch"), await place.begins("intake", SUBMITTED)) == (2, 0)
    await set_offsets(place.bootstrap, group_of("intake"), {(place.topics[SUBMITTED], 0): 3})

    place.adopter.books[late] = Book(late, elsewhere, ledger, None)
    await note_replaced(place.ledger, [place.topics[SUBMITTED]])  # as a worker does in every database
    if lost:
        await place.known_otherwise(SUBMITTED, topic_id="made since")
    plan = await place.adopter.plan()
    assert plan.current == (set() if lost else {place.name})
    await place.adopt()
    taken_again = (3, 0) if lost else (2, 3)
    for one in (place.ledger, ledger):
        epoch = await one.get_meta("documents.submitted.epoch")
        assert (epoch, await place.begins("intake", SUBMITTED)) == taken_again
        assert await one.identity(REPLACED) == ""
    assert not await CollectionState(place.ledger, place.name).reason()
    with pytest.raises(TaskFailed, match="nothing to adopt"):
        await place.adopter.plan()
