"""A replay never overwrites newer content, nor brings back a deleted document, for the dead letters of every role."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson
import pytest

from connectors.kafka import offsets, reader
from connectors.kafka.admin import delete_topics, existing_topics, provision
from connectors.kafka.bus import AiokafkaBus
from migration.dead_letters import replay as dead_letters
from migration.dead_letters import superseded as superseding
from migration.dead_letters.replay import Replayed, Selection, replay
from migration.epochs import Epochs
from schemas.cloudevents import decode, encode
from schemas.content import Content
from schemas.dead_letters import SUFFIX, DeadLetter, dead_letter
from schemas.documents import DocumentChanged, DocumentEmbedded, DocumentResolved, DocumentSubmitted, Event, Origin
from schemas.records import Outgoing, Received
from schemas.settings import Collection, Kafka, Settings
from stack.layout import StackAddresses
from tests.contract.consuming import make_topic
from topics.provisioning import REPLAYED, desired_topics, plan

pytestmark = pytest.mark.stack
ROLES = ["submitted", "log", "resolved", "embedded", "captured"]
OLD = Content(text={"body": "old"})
NEW = Content(text={"body": "new"})
_FIRST = Epochs()
COLLECTION = Collection(table="docs", key=("id",), text=("body",), metadata=("year", "month"))


@dataclass
class Place:
    """Topics of the test's own in place of the real ones, and methods that write to them."""

    bootstrap: str
    prefix: str
    bus: AiokafkaBus

    def topic(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    async def change(self, origin: Origin = "producer", source: str = "", **fields: Any) -> int:
        """Append an entry to the log; return its offset. `source` is the position of the record it was made from."""
        entry = DocumentChanged(collection="docs", id="1", origin=origin, **{"content": NEW, **fields})
        await self.bus.publish([self.record("log", entry, source)])
        return (await offsets.end_offsets(self.bootstrap, [self.topic("log")]))[self.topic("log")][0] - 1

    def record(self, topic: str, event: Event, event_id: str = "e") -> Outgoing:
        return encode(event, topic=self.topic(topic), key="docs/1", event_id=event_id, source="s", time_ms=0)

    async def letter(self, role: str, offset: int = 5, *, log_offset: int = 0, deleted: bool = False) -> None:
        """Publish a dead letter of a record with the old content."""
        content = None if deleted else OLD
        fields: dict[str, Any] = {"collection": "docs", "id": "1"}
        version = {"version": (1 << 40) | log_offset, "origin": "producer", "deleted": deleted}
        events: dict[str, Event] = {
            "submitted": DocumentSubmitted(**fields, text="old"),
            "log": DocumentChanged(**fields, origin="producer", content=content, deleted=deleted),
            "resolved": DocumentResolved(**fields, **version, content=content),
            "embedded": DocumentEmbedded(**fields, **version, tenant="t", content_hash="h", model="m", chunks=()),
            "captured": DocumentChanged(**fields, origin="legacy", content=content),
        }
        sent = self.record(role, events[role])
        await self.keep(sent, log_offset if role == "log" else offset)

    async def keep(self, sent: Outgoing, offset: int, time_ms: int = 0) -> None:
        """Publish a dead letter of a record."""
        at_ms = time_ms or time.time_ns() // 1_000_000
        received = Received(sent.topic, 0, offset, sent.key, sent.value, sent.headers, at_ms)
        await self.bus.publish([dead_letter(received, stage="x", error=ValueError("no"), attempt=1)])

    async def replay(
        self, *roles: str, force: bool = False, again: bool = False, epochs: Epochs = _FIRST
    ) -> list[Replayed]:
        async def captured(letter: DeadLetter) -> DocumentChanged | None:
            if letter.original.topic != self.topic("captured"):
                return None
            return decode(superseding.record_of(letter), DocumentChanged)[0]

        async def known() -> Epochs:
            return epochs

        selection = Selection(tuple(map(self.topic, roles)), again=again)
        now_ms = time.time_ns() // 1_000_000
        return await replay(
            self.bootstrap,
            self.bus,
            selection,
            now_ms=now_ms,
            dry_run=False,
            force=force,
            captured=captured,
            collections={"docs": COLLECTION},
            known_epochs=known,
        )

    async def records(self, name: str) -> list[Received]:
        return [record async for record in reader.read_topic(self.bootstrap, self.topic(name))]


@pytest.fixture
async def place(stack: StackAddresses, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    kafka = Kafka(bootstrap=stack.kafka)
    made = Place(stack.kafka, f"test.replay.{uuid4().hex}", AiokafkaBus(kafka))
    wanted = [topic for topic in desired_topics(Settings(kafka=kafka, collections={})) if topic.name == REPLAYED]
    await provision(stack.kafka, plan(wanted, await existing_topics(stack.kafka, [REPLAYED])))
    for role in ROLES:
        await make_topic(stack.kafka, made.topic(role), 1, 1024 * 1024)
    for module in (superseding, dead_letters):
        for name in ("SUBMITTED", "LOG", "RESOLVED", "EMBEDDED"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, made.topic(name.lower()))
    versioned = zip(("log", "resolved", "embedded"), superseding._VERSIONED.values(), strict=True)
    monkeypatch.setattr(superseding, "_VERSIONED", {made.topic(name): model for name, model in versioned})
    monkeypatch.setattr(superseding, "group_of", lambda role: f"{made.prefix}.{role}")
    yield made
    await made.bus.close()
    every = [made.topic(role) + suffix for role in ROLES for suffix in ("", SUFFIX)]
    await delete_topics(stack.kafka, every)


def source_of(place: Place, role: str, offset: int) -> str:
    """Return the source of a later change: a record of the letter's own topic if changes come from that topic."""
    return f"{place.topic(role)}/0/{offset}" if role in {"submitted", "captured"} else "elsewhere/0/1"


@pytest.mark.parametrize("role", ROLES)
async def test_a_letter_is_published_again_where_nothing_newer_was_accepted(place: Place, role: str) -> None:
    """Older changes, echoes of crossfade's own writes, and rows that were read again after a refusal do not count."""
    await place.change(source=source_of(place, role, 4))
    at = await place.change(source=source_of(place, role, 5)) if role not in {"submitted", "captured"} else 0
    await place.letter(role, log_offset=at)
    await place.change("legacy", before_version=None, after_version=7)
    await place.change("refresh", rejects=7)
    (step,) = await place.replay(role)
    assert (step.state, step.newer) == ("published", None)
    assert step.published_to == place.topic("submitted" if role == "resolved" else role)


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("role", ROLES)
async def test_a_superseded_letter_is_left_out_and_forced_becomes_a_new_change(
    place: Place, role: str, deleted: bool
) -> None:
    at = 0 if role in {"submitted", "captured"} else await place.change(content=OLD)
    await place.letter(role, log_offset=at)
    newer = await place.change(source=source_of(place, role, 6), deleted=deleted, content=None if deleted else NEW)
    before = len(await place.records(role))
    for _ in range(2):  # a letter that was left out is not marked as replayed
        (step,) = await place.replay(role)
        assert (step.state, step.published_to) == ("superseded", "")
        assert step.newer is not None
        assert (step.newer.topic, step.newer.offset, step.newer.deleted) == (place.topic("log"), newer, deleted)
        assert len(await place.records(role)) == before
    assert await place.records("submitted") == []

    (step,) = await place.replay(role, force=True)
    if role == "captured":
        assert step.state == "superseded"
        assert "verify --repair" in step.why
        return
    assert (step.state, step.published_to) == ("published", place.topic("submitted"))
    assert str(newer) in step.why
    (submitted,) = await place.records("submitted")
    assert "old" in (submitted.value or b"").decode()
    assert await place.replay(role, force=True) == []


async def test_a_submission_that_still_waits_for_intake_is_newer(place: Place) -> None:
    await place.letter("submitted", offset=0)
    await place.bus.publish(
        [Outgoing(place.topic("submitted"), b"docs/2", None), Outgoing(place.topic("submitted"), b"docs/1", None)]
    )
    (step,) = await place.replay("submitted")
    assert step.newer is not None
    assert (step.state, step.newer.waits, step.newer.deleted, step.newer.offset) == ("superseded", True, True, 1)


@pytest.mark.parametrize("role", ["submitted", "log", "resolved", "embedded"])
async def test_a_letter_of_a_topic_before_it_was_made_again_is_older_than_what_came_after(
    place: Place, role: str
) -> None:
    await place.letter(role, 500, log_offset=500)
    newer = await place.change(source=source_of(place, role, 4), position=(2, 0, 4))
    (step,) = await place.replay(role, epochs=Epochs(version=2, producer=2))
    assert step.newer is not None
    assert (step.state, step.newer.offset) == ("superseded", newer)


async def test_what_waits_in_a_topic_that_was_made_again_is_newer_than_a_letter_of_the_one_before(place: Place) -> None:
    await place.letter("submitted", offset=500)
    await place.bus.publish([Outgoing(place.topic("submitted"), b"docs/1", None)])
    (step,) = await place.replay("submitted", epochs=Epochs(version=1, producer=2))
    assert step.newer is not None
    assert (step.state, step.newer.waits) == ("superseded", True)


async def test_the_letters_of_a_dead_letter_topic_that_was_made_again_were_not_replayed(place: Place) -> None:
    await place.letter("submitted", 5)
    assert [step.state for step in await place.replay("submitted")] == ["published"]
    assert await place.replay("submitted") == []
    await delete_topics(place.bootstrap, [place.topic("submitted") + SUFFIX])
    await make_topic(place.bootstrap, place.topic("submitted"), 1, 1024 * 1024)
    await place.letter("submitted", 6)
    assert [step.state for step in await place.replay("submitted")] == ["published"]


async def test_of_several_letters_of_a_document_the_newest_is_published(place: Place) -> None:
    for offset in (3, 4, 5):
        await place.letter("submitted", offset)
    steps = await place.replay("submitted")
    assert sorted((step.offset, step.state) for step in steps) == [
        (0, "superseded"),
        (1, "superseded"),
        (2, "published"),
    ]


async def test_a_letter_is_published_where_no_newer_one_names_all_of_its_columns_and_before_those(
    place: Place,
) -> None:
    """This also holds if the older letter is in a topic that is read later."""
    now_ms = time.time_ns() // 1_000_000
    year = DocumentResolved(
        collection="docs",
        id="1",
        version=(1 << 40) | 1,
        origin="producer",
        content=Content(text={}, metadata={"year": 1, "month": 1}),
        omitted=("body",),
    )
    await place.keep(place.record("resolved", year), 1, now_ms - 3)
    later: list[dict[str, Any]] = [{"text": "a"}, {"metadata": {"year": 2}}, {"text": "b"}]
    for number, data in enumerate(later):
        value = orjson.dumps({"collection": "docs", "id": "1", **data})
        await place.keep(Outgoing(place.topic("submitted"), b"docs/1", value), number, now_ms - 2 + number)
    steps = await place.replay("submitted", "resolved")
    assert sorted((step.topic, step.offset) for step in steps if step.state == "superseded") == [
        (place.topic("submitted") + SUFFIX, 0)
    ]
    published = [orjson.loads(record.value or b"") for record in await place.records("submitted")]
    assert [(one.get("text"), one.get("metadata")) for one in published] == [
        ({}, {"year": 1, "month": 1}),
        (None, {"year": 2}),
        ("b", None),
    ]


async def test_a_letter_that_is_cut_does_not_stand_in_the_way_of_older_ones(place: Place) -> None:
    await place.letter("submitted", 3)
    large, now_ms = (("x", b"y" * 60_000),), time.time_ns() // 1_000_000
    received = Received(place.topic("submitted"), 0, 4, b"docs/1", None, large, now_ms)
    await place.bus.publish([dead_letter(received, stage="x", error=ValueError(), attempt=1, limit=30_000)])
    steps = await place.replay("submitted")
    assert sorted((step.offset, step.state) for step in steps) == [(0, "published"), (1, "unusable")]


async def test_a_letter_that_is_cut_or_was_never_read_is_not_published(place: Place) -> None:
    topic = place.topic("submitted")
    cut = dead_letter(
        Received(topic, 0, 1, b"docs/1", b"x" * 900_000), stage="x", error=ValueError(), attempt=1, limit=70_000
    )
    unread = dead_letter(
        Received(topic, 0, 9, None, b"raw", unread="checksum", records=4), stage="x", error=ValueError(), attempt=1
    )
    await place.bus.publish([cut, unread])
    steps = await place.replay("submitted", force=True)
    assert [(step.state, step.published_to) for step in steps] == [("unusable", "")] * 2
    assert await place.records("submitted") == []
