"""Adopts topics that were replaced: raises the epochs, has the roles read what may have been missed, and goes on.

Each step can be repeated: an adoption that was cut short starts from the beginning, with the epochs raised once more.
Nothing reads from the topics in the meantime, because the workers follow the quarantine until the last step ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from connectors.addresses import brokers_of, dsn_of
from connectors.errors import CrossfadeError, StoreUnavailable, TaskFailed
from connectors.failpoints import passing
from connectors.kafka.cursors import KafkaCursors
from connectors.kafka.groups import left_alone, set_offsets
from connectors.ports import Ledger
from connectors.sql.databases import open_legacy
from domain.quarantine import Quarantine, Reason
from domain.topics import Adoption, Replaced, TopicLook, TopicMark, adoption
from migration.epochs import (
    EPOCH,
    PRODUCER_EPOCH,
    REPLACED,
    Epochs,
    adopted_as,
    databases,
    epochs_of,
    found_moved,
    found_replaced,
    note_replaced,
    record_adopted,
    record_mark,
)
from migration.state import CollectionState, set_log_partitions
from migration.watch.topics import READERS, TopicWatch, captured_through
from schemas import settings as configured
from schemas.settings import Settings
from topics.captures import Capture
from topics.catalogue import CATALOGUE, EMBEDDED, LOG, RESOLVED, SUBMITTED, group_of

Progress = Callable[[str], None]
# Enough for a worker to notice the quarantine, drain and leave its groups, and for the brokers to drop a killed one.
ALONE_S = 90.0
_CAPTURE = "capture"


@dataclass(frozen=True, slots=True)
class Book:
    """What an adoption uses of one collection."""

    name: str
    settings: configured.Collection
    ledger: Ledger
    capture: Capture | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What was replaced, and what follows from it.

    `current` has the collections of databases in which all of it was adopted before. The other databases were left out
    of that adoption and now join it. What producers and applications have done since then is kept.
    """

    replaced: Mapping[str, str]
    steps: Adoption
    captured: frozenset[str]
    epochs: Epochs
    moved: frozenset[str]
    current: frozenset[str] = frozenset()


@dataclass(slots=True)
class Adopted:
    """What was done. `remedies` has the command that reactivates each collection that is still quarantined."""

    epochs: Epochs
    forgotten: int = 0
    remedies: dict[str, str] = field(default_factory=dict)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Adopter]:
    """Open the ledgers of the collections, except those whose table or database cannot be used.

    The topic records of those left out are not changed, so that the replaced topics are found again when they are back.
    Raises StoreUnavailable if no database can be used, or the brokers do not answer.
    """
    async with AsyncExitStack() as resources:
        books: dict[str, Book] = {}
        left_out: dict[str, str] = {}
        names = list(settings.collections)
        # Concurrently: an unreachable database takes its whole time limit.
        found = await asyncio.gather(*(_book(settings, name, resources) for name in names), return_exceptions=True)
        for name, each in zip(names, found, strict=True):
            if isinstance(each, Book):
                books[name] = each
            elif isinstance(each, CrossfadeError):
                left_out[name] = str(each)
            else:
                raise each
        if not books:
            raise StoreUnavailable("; ".join(f"{name}: {why}" for name, why in left_out.items()))
        watch = TopicWatch(settings.kafka, books)
        resources.push_async_callback(watch.close)
        yield Adopter(settings, books, watch, left_out)


async def _book(settings: Settings, name: str, resources: AsyncExitStack) -> Book:
    collection = settings.collections[name]
    legacy = await open_legacy(name, collection, dsn_of(name, collection))
    resources.push_async_callback(legacy.close)
    await legacy.prepare()
    capture = await CollectionState(legacy.ledger, name).capture(settings.kafka, collection)
    return Book(name, collection, legacy.ledger, capture)


@dataclass(slots=True)
class Adopter:
    """Plans an adoption and carries it out. `left_out` has the collections that cannot be opened, and why."""

    settings: Settings
    books: dict[str, Book]
    watch: TopicWatch
    left_out: dict[str, str] = field(default_factory=dict)

    async def plan(self) -> Plan:
        """Return the plan of the adoption. Raises TaskFailed if no topic was replaced, or one is missing."""
        found = await self.watch.confirmed()
        messages = {topic: one.message for topic, one in found.items()}
        noted: set[str] = set()
        for members in databases(self.books):
            for topic in await found_replaced(members[0].ledger):
                messages.setdefault(topic, f"{topic} was found replaced before")
            noted |= await found_moved(members[0].ledger)
        working = {topic for topic in messages if topic in READERS}
        if not working:
            raise _nothing(self._captured(found))
        await self._check_usable()
        steps = adoption(SUBMITTED in working, LOG in working, RESOLVED in working, EMBEDDED in working)
        epochs = await epochs_of([book.ledger for book in self.books.values()])
        moved = frozenset(topic for topic, one in found.items() if one.moved) | noted
        current = await self._current(working)
        if current:
            steps = replace(steps, version_epoch=False, producer_epoch=False, restart=frozenset())
        raised = Epochs(epochs.version + steps.version_epoch, epochs.producer + steps.producer_epoch)
        return Plan(messages, steps, frozenset(self._captured(found)), raised, moved, current)

    async def carry_out(self, plan: Plan, progress: Progress) -> Adopted:
        """Carry out the plan. Raises TaskFailed if a worker goes on reading."""
        await self._quarantine(plan)
        await self._wait_alone(progress)
        looks = await self._looks()
        done = Adopted(plan.epochs)
        passing("adoption.before_epochs")
        for book in self.books.values():
            await book.ledger.set_meta(EPOCH, plan.epochs.version)
            await book.ledger.set_meta(PRODUCER_EPOCH, plan.epochs.producer)
            await set_log_partitions(book.ledger, len(looks[LOG].bounds))
            if plan.steps.forget and book.name not in plan.current:
                done.forgotten += await book.ledger.forget_undelivered()
        passing("adoption.before_offsets")
        read = await self._restart(plan, looks)
        passing("adoption.before_marks")
        for members in databases(self.books):
            readers = {**READERS, **self.watch.captured(members)}
            for topic in readers.keys() & looks.keys() - plan.captured:
                bounds = {at: end for at, (_, end) in looks[topic].bounds.items()}
                positions = {**looks[topic].read, **read.get(topic, {})}
                await record_mark(
                    members[0].ledger, topic, TopicMark(looks[topic].cluster, looks[topic].topic, bounds, positions)
                )
        await self._release(plan, looks, done)
        return done

    async def _current(self, working: Collection[str]) -> frozenset[str]:
        """Return the collections of the databases in which the current topics were adopted already."""
        looks = await self._looks()
        found: set[str] = set()
        for members in databases(self.books):
            ledger = members[0].ledger
            adopted = {topic: await adopted_as(ledger, topic) for topic in working}
            as_now = all(adopted[topic] == _identity(looks[topic]) for topic in working)
            wrong = self.watch.wrong.get(members[0].name, frozenset()) & set(working)
            if as_now and not wrong:  # the topics noted in it may have been found replaced for another database
                found.update(book.name for book in members)
        return frozenset(found)

    async def _check_usable(self) -> None:
        looks = await self._looks()
        missing = sorted(READERS.keys() - looks.keys())
        if missing:
            raise TaskFailed(
                f"There is no topic {', '.join(missing)}.", "Make what is missing (crossfade topics apply), then adopt."
            )
        counts = {topic.name: len(looks[topic.name].bounds) for topic in CATALOGUE if topic.partitions == "log"}
        if len(set(counts.values())) > 1:
            raise TaskFailed(
                f"The working topics must have one number of partitions, they have {counts}.",
                "Delete what was made with another one, make it again (crossfade topics apply), then adopt.",
            )

    def _captured(self, found: Mapping[str, Replaced]) -> dict[str, list[str]]:
        """Return the replaced topics of capture, each with the collections that are captured through it."""
        names: dict[str, list[str]] = {}
        for name, book in self.books.items():
            own = captured_through(book)
            if own in found:
                names.setdefault(own, []).append(name)
        return names

    async def _looks(self) -> dict[str, TopicLook]:
        return await self.watch.look({**READERS, **self.watch.captured(self.books.values())})

    async def _quarantine(self, plan: Plan) -> None:
        for members in databases(self.books):
            working = plan.replaced.keys() & READERS.keys()
            await note_replaced(members[0].ledger, working, plan.moved & working)
        for name, book in self.books.items():
            state = CollectionState(book.ledger, name)
            if await state.reason() is None:
                await state.set_reason(Reason.TOPIC_REPLACED)

    async def _wait_alone(self, progress: Progress) -> None:
        progress("waiting until the workers have left the topics")
        groups = sorted({group_of(role) for roles in READERS.values() for role in roles} | {group_of(_CAPTURE)})
        busy = await left_alone(brokers_of(self.settings.kafka), groups, ALONE_S)
        if busy:
            raise TaskFailed(
                f"Something still reads as {', '.join(busy)}; nothing was changed.",
                "Workers of this version leave by themselves. Stop the others, then adopt.",
            )

    async def _restart(self, plan: Plan, looks: Mapping[str, TopicLook]) -> dict[str, dict[str, dict[int, int]]]:
        """Reset the roles to the first record of their topics; return the offsets, by topic and role."""
        captured = self.watch.captured(self.books.values()).keys() & looks.keys()
        found: dict[str, dict[str, dict[int, int]]] = {}
        for role in sorted(plan.steps.restart):
            topics = captured if role == _CAPTURE else [topic for topic, roles in READERS.items() if role in roles]
            for topic in topics:
                begins = _first(plan, looks[topic], topic, role)
                places = {(topic, at): begin for at, begin in begins.items()}
                await set_offsets(brokers_of(self.settings.kafka), group_of(role), places)
                await self._unpark(role, places)
                found.setdefault(topic, {})[role] = begins
        return found

    async def _unpark(self, role: str, places: Mapping[tuple[str, int], int]) -> None:
        """Forget the offsets of parked collections: the role reads all of them from the given offsets."""
        cursors = KafkaCursors(brokers_of(self.settings.kafka), role)
        try:
            for name in await cursors.load(self.settings.collections):
                await cursors.unpark(name, places)
        finally:
            await cursors.close()

    async def _release(self, plan: Plan, looks: Mapping[str, TopicLook], done: Adopted) -> None:
        """End the quarantine. Collections that must be compared or captured again stay quarantined for that reason.

        The adopted topics are recorded last. If they were recorded earlier, an adoption that is run again would take
        these databases for current.
        """
        for name, book in self.books.items():
            state = CollectionState(book.ledger, name)
            reason = await state.reason()
            if reason is Reason.TOPIC_REPLACED:
                reason = self._after(book, plan)
                await state.set_reason(reason)
            if reason is not None:
                done.remedies[name] = Quarantine(name, reason).remedy
        passing("adoption.before_release")
        for members in databases(self.books):
            for topic in plan.replaced.keys() & READERS.keys():
                await record_adopted(members[0].ledger, topic, _identity(looks[topic]))
            await members[0].ledger.set_identity(REPLACED, "")

    def _after(self, book: Book, plan: Plan) -> Reason | None:
        own = captured_through(book)
        if own in plan.captured:
            return Reason.CAPTURE_LOST
        return Reason.POINTS_REPLACED if plan.steps.behind and book.name not in plan.current else None


def _identity(look: TopicLook) -> str:
    return f"{look.cluster}/{look.topic}"


def _first(plan: Plan, look: TopicLook, topic: str, role: str) -> dict[int, int]:
    """Return where a role begins: at the first record, or after the records that were copied and read elsewhere.

    Records of the submitted topic that were copied to another cluster would take effect again. If the group's offsets
    were copied too, they show what was read: nothing in this cluster has read since the quarantine.
    """
    copied = topic == SUBMITTED and topic in plan.moved
    return {
        at: max(begin, min(end, look.read.get(role, {}).get(at, begin))) if copied else begin
        for at, (begin, end) in look.bounds.items()
    }


def _nothing(captured: Mapping[str, list[str]]) -> TaskFailed:
    if not captured:
        return TaskFailed("No topic was replaced: there is nothing to adopt.", "See them: crossfade topics list")
    names = sorted({name for names in captured.values() for name in names})
    return TaskFailed(
        f"Only topics of capture were replaced: {', '.join(sorted(captured))}.",
        f"What was lost in them is captured again by: crossfade recapture {' '.join(names)}",
    )
