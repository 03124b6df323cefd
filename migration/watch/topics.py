"""Watches whether the topics are those that the ledgers know, by their ids, their cluster and their end offsets.

If a topic was replaced, or lost records that a role had not read, the collections are quarantined and no role takes a
record from the topics (see `agents.worker`) until `crossfade topics adopt`. A replaced topic of capture concerns only
the collections of its table: what was lost in it is captured again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from connectors.addresses import brokers_of
from connectors.errors import CrossfadeError
from connectors.kafka.offsets import KafkaOffsets
from domain.quarantine import Reason
from domain.topics import Replaced, TopicLook, TopicMark, named, replaced
from migration.epochs import Recorded, databases, note_replaced, record_mark, recorded_mark
from migration.quarantine import Quarantines
from schemas.settings import Kafka
from topics.catalogue import group_of
from topics.roles import RoleName, working_topics

log = logging.getLogger("crossfade.topics")
WATCH_S = 2.0
_CONFIRM_S = 1.0
# The topics that all collections share, and the roles that read them.
READERS: Mapping[str, tuple[RoleName, ...]] = {
    topic: tuple(role.name for role in roles) for topic, roles in working_topics().items()
}


@dataclass(slots=True)
class TopicWatch:
    """Compares topics with their records, and records them.

    `known` has the marks that this process knows, by a database's first collection and topic. `wrong` has, by a
    database's first collection, the topics that differed from its record at the last comparison.
    """

    kafka: Kafka
    collections: Mapping[str, Recorded]
    offsets: KafkaOffsets = field(init=False)
    known: dict[tuple[str, str], TopicMark] = field(default_factory=dict)
    wrong: dict[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.offsets = KafkaOffsets(brokers_of(self.kafka))

    async def close(self) -> None:
        """Close the connections."""
        await self.offsets.close()

    def captured(self, members: Iterable[Recorded]) -> dict[str, tuple[str, ...]]:
        """Return the capture topics of the collections, with their readers."""
        return {one.capture.topic: ("capture",) for one in members if one.capture is not None}

    async def look(self, readers: Mapping[str, tuple[str, ...]]) -> dict[str, TopicLook]:
        """Return the current state of the topics that exist. Raises StoreUnavailable."""
        identities = await self.offsets.identities(readers)
        roles = {role for topic in identities for role in readers[topic]}
        committed = {role: await self.offsets.committed(group_of(role)) for role in sorted(roles)}
        bounds = await self.offsets.bounds(identities)
        found: dict[str, TopicLook] = {}
        for topic, identity in identities.items():
            kept = {at: both for (name, at), both in bounds.items() if name == topic}
            read = {
                role: {at: offset for (name, at), offset in committed[role].items() if name == topic}
                for role in readers[topic]
            }
            if kept:
                found[topic] = TopicLook(identity.cluster, identity.topic, kept, read)
        return found

    async def compare(self, *, fresh: bool = False) -> dict[str, Replaced]:
        """Return the topics that differ from their record; record those that are the same or were never seen.

        `fresh` reads every record again: another process may have adopted the current topics.
        """
        if fresh:
            self.known.clear()
        found: dict[str, Replaced] = {}
        for members in databases(self.collections):
            readers = {**READERS, **self.captured(members)}
            try:
                marks = {topic: await self._mark(members[0], topic, readers[topic]) for topic in readers}
            except CrossfadeError as error:
                log.warning("the topics of %s are not compared now: %s", members[0].name, error)
                continue
            # The marks are read first: offsets only rise, so current offsets are never below recorded ones.
            looks = await self.look(readers)
            compared = [replaced(topic, mark, looks.get(topic)) for topic, mark in marks.items() if mark is not None]
            wrong = {one.topic: one for one in compared if one is not None}
            found |= wrong
            self.wrong[members[0].name] = frozenset(wrong)
            # The record of a replaced topic is kept: it is what shows that the topic was replaced.
            await self._record(members[0], {t: look for t, look in looks.items() if t not in wrong})
        return found

    async def _mark(self, ports: Recorded, topic: str, roles: tuple[str, ...]) -> TopicMark | None:
        if (ports.name, topic) not in self.known:
            mark = await recorded_mark(ports.ledger, topic, roles)
            if mark is None:
                return None
            self.known[ports.name, topic] = mark
        return self.known[ports.name, topic]

    async def _record(self, ports: Recorded, looks: Mapping[str, TopicLook]) -> None:
        for topic, look in looks.items():
            try:
                await record_mark(ports.ledger, topic, look.mark, self.known.get((ports.name, topic)))
            except CrossfadeError as error:
                log.warning("what was seen of %s is not recorded now: %s", topic, error)
                return
            self.known[ports.name, topic] = look.mark

    async def confirmed(self) -> dict[str, Replaced]:
        """Return the topics that differ from their record. A recheck must repeat any difference that is not `sure`."""
        found = await self.compare()
        if not found:
            return {}
        if not all(one.sure for one in found.values()):
            await asyncio.sleep(_CONFIRM_S)
        again = await self.compare(fresh=True)
        return {topic: one for topic, one in again.items() if one.sure or topic in found}


def captured_through(ports: Recorded) -> str:
    """Return the capture topic of a collection, the empty string if it was never captured."""
    return ports.capture.topic if ports.capture is not None else ""


async def quarantine_all(watch: TopicWatch, quarantines: Quarantines, found: Mapping[str, Replaced]) -> None:
    """Quarantine, here and durably, what depends on replaced topics. An unreachable database holds up no other."""
    working = {topic: one for topic, one in found.items() if topic in READERS}
    quarantines.replaced |= set(working)
    for members in databases(quarantines.collections):
        try:
            if working:
                await note_replaced(members[0].ledger, working)
            for ports in members:
                own = captured_through(ports)
                if working and ((quarantine := quarantines.of(ports.name)) is None or quarantine.passes):
                    await quarantines.quarantine(ports.name, Reason.TOPIC_REPLACED, named(working.values()))
                elif own in found:
                    await quarantines.quarantine(ports.name, Reason.CAPTURE_LOST, found[own].message)
        except CrossfadeError as error:
            log.warning("that topics were replaced is not recorded now: %s", error)


async def compare_topics(kafka: Kafka, quarantines: Quarantines) -> None:
    """Compare before the first record is taken, and follow what was found earlier. Raises StoreUnavailable."""
    watch = TopicWatch(kafka, quarantines.collections)
    try:
        await quarantines.follow()
        if not quarantines.replaced and (found := _news(watch, quarantines, await watch.confirmed())):
            log.error("topics were replaced: %s", named(found.values()))
            await quarantine_all(watch, quarantines, found)
    finally:
        await watch.close()


async def watch_topics(kafka: Kafka, quarantines: Quarantines, changed: Callable[[], None]) -> None:
    """Watch for as long as the worker runs. After a finding, do not compare again until the topics are adopted."""
    watch = TopicWatch(kafka, quarantines.collections)
    try:
        while True:
            try:
                if not quarantines.replaced and (found := _news(watch, quarantines, await watch.confirmed())):
                    log.error("topics were replaced: %s", named(found.values()))
                    await quarantine_all(watch, quarantines, found)
                    changed()
            except CrossfadeError as error:
                log.warning("the topics are not watched now: %s", error)
            if quarantines.replaced:
                watch.known.clear()
            await asyncio.sleep(WATCH_S)
    finally:
        await watch.close()


def _news(watch: TopicWatch, quarantines: Quarantines, found: Mapping[str, Replaced]) -> dict[str, Replaced]:
    """Leave out capture topics whose collections are already quarantined for another reason that recapture fixes."""
    captured: dict[str, bool] = {}
    for ports in quarantines.collections.values():
        own = captured_through(ports)
        captured[own] = (
            captured.get(own, False) or (quarantine := quarantines.of(ports.name)) is None or quarantine.captures
        )
    return {topic: one for topic, one in found.items() if captured.get(topic, topic in READERS)}
