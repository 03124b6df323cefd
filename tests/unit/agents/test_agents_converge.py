"""All document agents together over the in-memory adapters, in random histories: what went wrong is mended in the end.

A history is made from its seed: producers and an application write, batches have any size, processes die at any step,
records are delivered again or handled by a worker that was replaced long ago, stores fail to answer, rows arrive
incomplete, rows are refused, and the verifier has rows read again. `CROSSFADE_SEEDS=A:B` runs other seeds.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from agents.batch import Batch, Message
from agents.embedder import embed
from agents.intake import intake
from agents.legacy_writer import refusal_told, write_legacy
from agents.outcomes import lost_embedded, lost_resolved
from agents.refresh import append_refreshes
from agents.resolver import resolve
from agents.runner import Lost, Retry, Runner
from agents.vector_writer import write_vectors
from connectors.errors import StoreUnavailable, TransientError
from domain.comparison import LegacyFacts, compare
from domain.fold import is_echo
from schemas.cloudevents import encode
from schemas.content import Content, content_hash
from schemas.documents import DocumentSubmitted, DocumentWritten
from schemas.records import Outgoing
from tests.unit.agents.parts import NAME, NOW, World, content
from topics.catalogue import EMBEDDED, LOG, RESOLVED, SUBMITTED, WRITTEN, dead_letter_topic

FIRST, _, LAST = os.environ.get("CROSSFADE_SEEDS", "0:150").partition(":")
IDS = ("1", "2")
TOPICS = {"intake": SUBMITTED, "resolver": LOG, "legacy": RESOLVED, "embedder": RESOLVED, "vector": EMBEDDED}
STEPS = {
    "intake": [f"publish {LOG}"],
    "resolver": ["ledger.read", f"publish {RESOLVED}", "ledger.folded", "table.rows", f"publish {LOG}"],
    "legacy": [
        "table.apply",
        "ledger.read",
        "table.rows",
        f"publish {LOG}",
        f"publish {WRITTEN}",
        f"publish {dead_letter_topic(RESOLVED)} {WRITTEN}",
        "ledger.refusals_told",
    ],
    "embedder": ["vectors.stored", f"publish {EMBEDDED}", f"publish {WRITTEN}"],
    "vector": ["vectors.stored", "vectors.write", "ledger.vectors_written", f"publish {WRITTEN}"],
}


class Killed(BaseException):
    """The end of a process, which no handler sees."""


def refuses(_: str, given: Content) -> str | None:
    return "value too long" if "poison" in given.full_text() else None


class HeldBus:
    """Keeps what is published until a history lets it go."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []

    async def publish(self, records: Sequence[Outgoing]) -> None:
        self.records += records


class History:
    """One random history over one collection with a few documents."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = World(constraint=refuses)
        self.held = HeldBus()
        self.ids = self.random.choice([("1",), ("1", "2")])
        self.at = dict.fromkeys(TOPICS, 0)
        self.captured_at = 0
        self.old: dict[str, list[Batch]] = {role: [] for role in TOPICS}
        self.submitted = self.written_directly = 0
        around, told = self.world.around, partial(refusal_told, collections=self.world.collections)
        self.runners = {
            "intake": self.runner("intake", intake),
            "resolver": self.runner("resolver", resolve),
            "legacy": self.runner("legacy", write_legacy, partial(lost_resolved, store="legacy", around=around)),
            "embedder": self.runner("embedder", embed, partial(lost_resolved, store="qdrant", around=around)),
            "vector": self.runner("vector", write_vectors, partial(lost_embedded, around=around)),
        }
        self.runners["legacy"].told = told

    def runner(self, role: str, handler: Any, lost: Lost = lambda _m, _e: []) -> Runner:
        world = self.world
        return Runner(role, partial(handler, **world.handled), lost, world.bus, world.around, Retry(2, 0.0, 0.0))

    def text(self) -> str:
        words = [self.random.choice("abc") for _ in range(self.random.randrange(1, 8))]
        return " ".join([*words, "poison"] if self.random.random() < 0.15 else words)

    async def happen(self) -> None:
        """Let one thing happen."""
        happening = self.random.choices(
            [self.submit, self.write_directly, self.capture, self.work, self.work_again, self.refresh, self.let_go],
            [10, 14, 14, 45, 5, 8, 6],
        )[0]
        await happening()

    async def submit(self) -> None:
        document_id, self.submitted = self.random.choice(self.ids), self.submitted + 1
        headers = (("ce_id", f"event-{self.submitted}".encode()),)
        key, value = f"{NAME}/{document_id}".encode(), None
        if self.random.random() < 0.75:
            event = DocumentSubmitted(collection=NAME, id=document_id, text=self.text())
            value = event.model_dump_json().encode()
        self.world.bus.add(Outgoing(SUBMITTED, key, value, headers))

    async def write_directly(self) -> None:
        document_id, legacy = self.random.choice(self.ids), self.world.legacy
        if self.random.random() < 0.3:
            legacy.delete_directly(document_id)
        else:
            legacy.write_directly(document_id, content(self.text().replace("poison", "d")))
            self.written_directly += 1

    async def capture(self) -> None:
        """Append what was captured since the last commit; now and then it is appended again, or a row is not whole."""
        captured = self.world.legacy.captured
        end = self.random.randint(self.captured_at, len(captured))
        for changed in captured[self.captured_at : end]:
            entry = changed
            if changed.content is not None and self.random.random() < 0.2:
                entry = changed.model_copy(update={"incomplete": True, "content": None, "content_hash": None})
            key = f"{NAME}/{entry.id}"
            self.world.bus.add(encode(entry, topic=LOG, key=key, event_id="c", source="capture", time_ms=NOW))
        if self.random.random() < 0.7:
            self.captured_at = end

    async def refresh(self) -> None:
        """The verifier reads a row; what it read reaches the log at some later time."""
        await append_refreshes(
            self.world.ports,
            [self.random.choice(self.ids)],
            bus=self.held,
            around=self.world.around,
            source="crossfade/verifier",
        )

    async def let_go(self) -> None:
        """A refresh that the verifier read earlier reaches the log."""
        if self.held.records:
            self.world.bus.add(self.held.records.pop(self.random.randrange(len(self.held.records))))

    async def work(self) -> None:
        role = self.random.choice(list(TOPICS))
        waiting = self.waiting(role)[: self.random.randrange(1, 6)]
        if waiting and await self.run(role, waiting) and self.random.random() < 0.8:
            self.at[role] += len(waiting)

    async def work_again(self) -> None:
        """A worker that was replaced long ago goes on with what it had."""
        role = self.random.choice(list(TOPICS))
        if self.old[role]:
            await self.run(role, self.random.choice(self.old[role]))

    def waiting(self, role: str) -> list[Message]:
        return self.world.bus.messages(TOPICS[role])[self.at[role] :]

    async def run(self, role: str, batch: Batch) -> bool:
        """Run a role over a batch; return whether it lived to the end of it."""
        self.old[role].append(batch)
        trouble: BaseException | None = self.random.choice(
            [Killed(), StoreUnavailable("down"), TransientError("busy"), None, None, None]
        )
        if trouble is not None:
            self.world.journal.fail(self.random.choice(STEPS[role]), trouble, after=self.random.random() < 0.5)
        try:
            await self.runners[role].run(batch)
        except Killed:
            return False
        finally:
            self.world.journal.calm()
        return True

    async def finish(self) -> None:
        """Let every role come to its end without further trouble."""
        while self.held.records:
            await self.let_go()
        for _ in range(50):
            before = self.progress()
            captured = self.world.legacy.captured
            for changed in captured[self.captured_at :]:
                key = f"{NAME}/{changed.id}"
                self.world.bus.add(encode(changed, topic=LOG, key=key, event_id="c", source="capture", time_ms=NOW))
            self.captured_at = len(captured)
            for role in TOPICS:
                if waiting := self.waiting(role):
                    await self.runners[role].run(waiting)
                    self.at[role] += len(waiting)
            if self.progress() == before:
                return
        raise AssertionError("the agents never come to rest")

    def rewind(self) -> None:
        """Have everything from some record on delivered again, to each role from a record of its own."""
        self.captured_at = self.random.randint(0, self.captured_at)
        for role, at in self.at.items():
            self.at[role] = self.random.randint(0, at)

    def progress(self) -> tuple[int, ...]:
        return (self.captured_at, *self.at.values())


@pytest.mark.parametrize("seed", range(int(FIRST), int(LAST)))
async def test_in_the_end_both_stores_hold_the_same_and_every_event_has_an_outcome(seed: int) -> None:
    history = History(seed)
    world = await history.world.prepared()
    for _ in range(history.random.randrange(10, 80)):
        await history.happen()
    await history.finish()
    await assert_the_same(world)
    assert_nothing_is_lost(history)
    history.rewind()
    await history.finish()
    await assert_the_same(world)
    assert_nothing_is_lost(history)


async def assert_the_same(world: World) -> None:
    stored = await world.vectors.stored(NAME, IDS, content=True)
    for document_id in IDS:
        row, ledger = world.legacy.stored.get(document_id), world.legacy.ledger_rows.get(document_id)
        count = ledger.chunk_count if ledger else None
        facts = LegacyFacts(row.version, content_hash(row.content), count) if row else None
        points = stored.get(document_id, [])
        assert compare(document_id, facts, points) is None
        texts = [point.text for point in points if not point.deleted]
        assert texts == (list(world.embedder.chunks(row.content.full_text())) if row else [])
        vectors = [point.vector for point in points if not point.deleted]
        assert vectors == await world.embedder.embed_documents([text or "" for text in texts])


def assert_nothing_is_lost(history: History) -> None:
    world = history.world
    told: dict[str, set[str]] = {}
    for outcome in world.bus.events(WRITTEN, DocumentWritten):
        if outcome.store in {"legacy", None}:
            told.setdefault(outcome.cause, set()).add(outcome.outcome)
    assert {f"event-{number + 1}" for number in range(history.submitted)} <= set(told)
    # A second delivery may find a version superseded that was applied before; refused and applied it never is.
    assert not [cause for cause, outcomes in told.items() if {"applied", "dead_lettered"} <= outcomes]
    # Every write of ours is recognised as such: the others are as many as the application made.
    foreign = [change for change in world.legacy.captured if not change.deleted and not is_echo(change)]
    assert len(foreign) == history.written_directly
    assert not any(row.state.pending for row in world.legacy.ledger_rows.values())
