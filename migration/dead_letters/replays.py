"""What was replayed of the dead-letter topics, kept in a compacted topic with one record per partition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from connectors.errors import Misconfigured
from connectors.kafka import reader
from connectors.kafka.admin import admin_client
from connectors.kafka.identity import topic_identities
from migration.dead_letters.marks import ReplayMarks
from schemas.records import Outgoing, Received
from topics.provisioning import REPLAYED

_NOTHING = ReplayMarks()


@dataclass(slots=True)
class Replays:
    """The marks of dead-letter topics, by topic, topic id and partition.

    A recreated topic has another id: none of its letters was replayed. Marks without an id come from releases that did
    not write it, or from brokers that have none. They apply as long as the topic has no marks with an id.
    """

    marks: dict[tuple[str, str, int], ReplayMarks] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)

    def __contains__(self, letter: Received) -> bool:
        return letter.offset in self._of(letter.topic, letter.partition)

    def copy(self) -> Replays:
        """Return an independent copy of the current marks."""
        return Replays(dict(self.marks), self.ids)

    def add(self, topic: str, partition: int, offset: int) -> None:
        """Mark a letter by its partition and offset in the dead-letter topic."""
        self.marks[self._key(topic, partition)] = self._of(topic, partition).add(offset)

    def record(self, topic: str, partition: int) -> Outgoing:
        """Return the record that keeps the marks of a partition."""
        name, topic_id, _ = key = self._key(topic, partition)
        kept = f"{name}/{partition}/{topic_id}" if topic_id else f"{name}/{partition}"
        return Outgoing(REPLAYED, kept.encode(), self.marks[key].encode())

    def _of(self, topic: str, partition: int) -> ReplayMarks:
        found = self.marks.get(self._key(topic, partition))
        if found is None and not any(name == topic and topic_id for name, topic_id, _ in self.marks):
            found = self.marks.get((topic, "", partition))
        return found or _NOTHING

    def _key(self, topic: str, partition: int) -> tuple[str, str, int]:
        return topic, self.ids.get(topic, ""), partition


async def replays_of(bootstrap: str, topics: Iterable[str]) -> Replays:
    """Return the marks of dead-letter topics. Raises Misconfigured for a mark that cannot be read."""
    names = set(topics)
    async with admin_client(bootstrap) as admin:
        identities = await topic_identities(admin, names)
    found: dict[tuple[str, str, int], ReplayMarks] = {}
    async for record in reader.read_topic(bootstrap, REPLAYED):
        name, partition, topic_id = (*(record.key or b"").decode().split("/"), "", "")[:3]
        if name not in names:
            continue
        try:
            found[name, topic_id, int(partition)] = ReplayMarks.decode(record.value or b"")
        except ValueError as error:
            raise Misconfigured(f"{REPLAYED}/{record.partition}/{record.offset}: {error}") from error
    return Replays(found, {name: identity.topic for name, identity in identities.items()})
