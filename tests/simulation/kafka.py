"""Consumer groups over the in-memory bus, and the parts of Faust that the production agents use.

No record is handled here. An instance tracks and acknowledges records as Faust's consumer does: it may commit only the
first run of acknowledged offsets. A replaced instance continues with the records that it holds, but its
acknowledgements have no effect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from connectors.memory.bus import MemoryBus
from schemas.records import Received
from tests.simulation.loop import IDLE, Point

Place = tuple[str, int]
"""Topic and partition."""


class SimMessage:
    """One record as Faust holds it."""

    __slots__ = ("generation_id", "headers", "key", "offset", "partition", "timestamp", "topic", "tracked", "value")

    def __init__(self, record: Received, generation_id: int) -> None:
        self.topic, self.partition, self.offset, self.key, self.value, self.headers = record[:6]
        self.timestamp = record.timestamp_ms / 1000
        self.generation_id = generation_id
        self.tracked = False


@dataclass(slots=True)
class SimEvent:
    """A message that an agent has taken."""

    message: SimMessage
    instance: SimApp

    def ack(self) -> None:
        self.instance.acknowledged(self.message)


@dataclass(slots=True)
class SimChannel:
    """The buffer of a stream. A process that waits for it is at the point `IDLE`."""

    buffer: deque[SimEvent] = field(default_factory=deque)

    @property
    def queue(self) -> SimChannel:
        return self

    async def get(self) -> SimEvent:
        while not self.buffer:
            await Point(IDLE)
        return self.buffer.popleft()

    def get_nowait(self) -> SimEvent:
        return self.buffer.popleft()

    def empty(self) -> bool:
        return not self.buffer


@dataclass(slots=True)
class Group:
    """The committed offsets of a role, and the generation of its assignment."""

    role: str
    topics: Sequence[str]
    bus: MemoryBus
    generation: int = 1
    committed: dict[Place, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.committed = {(t, p): 0 for t in self.topics for p in sorted(self.bus.end_offsets(t))}

    @property
    def places(self) -> list[Place]:
        return list(self.committed)

    def lag(self) -> int:
        ends = {topic: self.bus.end_offsets(topic) for topic in self.topics}
        return sum(ends[topic][partition] - offset for (topic, partition), offset in self.committed.items())

    def read_instead(self, topic: str, other: str) -> None:
        """Replace a topic by another one, and read that one from its beginning."""
        self.topics = [other if name == topic else name for name in self.topics]
        kept = {place: offset for place, offset in self.committed.items() if place[0] != topic}
        self.committed = kept | {(other, p): 0 for p in sorted(self.bus.end_offsets(other))}
        self.generation += 1

    def rewind(self, back: int) -> None:
        """Move every partition back by `back` records, so that they are delivered again."""
        self.generation += 1
        self.committed = {place: max(0, offset - back) for place, offset in self.committed.items()}


class SimApp:
    """A Faust application of one role in one process, and its one stream."""

    def __init__(self, role: str, limit: int) -> None:
        self.conf = SimpleNamespace(id=f"crossfade-{role}")
        self.role = role
        self.crashed = False
        self.limit = limit
        self.agents: dict[str, Callable[[Any], Any]] = {}
        self.channel = SimChannel()
        self.should_stop = False
        self.consumer = SimpleNamespace(track_message=lambda message: None)
        self.flow_control = SimpleNamespace(is_active=lambda: True)
        self.consumer_generation_id = 0
        self.positions: dict[Place, int] = {}
        self._acked: dict[Place, set[int]] = {}

    @property
    def app(self) -> SimApp:
        """The application of the stream; here both are the same object."""
        return self

    def topic(self, *names: str, **_: Any) -> Sequence[str]:
        return names

    def agent(self, _: Any, *, name: str, concurrency: int) -> Callable[[Any], Any]:
        assert concurrency == 1, "with more, Faust may commit past an unfinished message"
        return lambda agent: self.agents.setdefault(name, agent)

    def assign(self, group: Group) -> None:
        """Take over the group's partitions from their committed offsets.

        Records that are already in the buffer belong to an older assignment.
        """
        self.consumer_generation_id = group.generation
        self.positions = dict(group.committed)
        self._acked = {place: set() for place in group.committed}

    def deliver(self, group: Group, order: Sequence[int]) -> None:
        """Put the next record of each of the given partitions (by number in the assignment) into the buffer."""
        places = group.places
        for number in order:
            if len(self.channel.buffer) >= self.limit:
                return
            place = places[number % len(places)]
            found = group.bus.read(*place, self.positions[place], 1)
            if found:
                self.positions[place] += 1
                self.channel.buffer.append(SimEvent(SimMessage(found[0], self.consumer_generation_id), self))

    def acknowledged(self, message: SimMessage) -> None:
        """Note an acknowledgement. Ignore one of another generation: its partitions were given back."""
        if message.generation_id == self.consumer_generation_id:
            self._acked[message.topic, message.partition].add(message.offset)

    def committable(self, group: Group) -> dict[Place, int]:
        """Return, for each partition, the end of the first run of acknowledged offsets."""
        found: dict[Place, int] = {}
        for place, offset in group.committed.items():
            acked = self._acked[place]
            end = offset
            while end in acked:
                end += 1
            found[place] = end
        return found
