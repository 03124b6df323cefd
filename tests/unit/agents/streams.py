"""Small substitutes for the parts of Faust that agents use: a stream over a queue, its events, and the application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

TOPIC = "crossfade.queries.asked.v1"


@dataclass
class FakeMessage:
    """One Kafka message as Faust represents it. `timestamp` is in seconds."""

    offset: int
    generation_id: int = 1
    value: bytes | None = b"{}"
    headers: Any = ()
    timestamp: float | None = 1.5
    topic: str = TOPIC
    partition: int = 0
    key: bytes | None = b"k"
    tracked: bool = False


@dataclass
class FakeEvent:
    """One event. Its acknowledgement is recorded by offset."""

    message: FakeMessage
    acknowledged: list[int]

    def ack(self) -> None:
        self.acknowledged.append(self.message.offset)


@dataclass
class FakeApp:
    """An application in generation 1 whose assignment is active. It keeps the agents that are added to it."""

    active: bool = True
    consumer_generation_id: int = 1
    tracked: list[int] = field(default_factory=list)
    agents: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    conf: Any = field(default_factory=lambda: SimpleNamespace(id="crossfade-test"))

    @property
    def flow_control(self) -> Any:
        return SimpleNamespace(is_active=lambda: self.active)

    @property
    def consumer(self) -> Any:
        return SimpleNamespace(track_message=lambda message: self.tracked.append(message.offset))

    def topic(self, *names: str, **_: Any) -> tuple[str, ...]:
        return names

    def agent(self, _: Any, *, name: str, concurrency: int) -> Callable[[Any], Any]:
        assert concurrency == 1, "with more, Faust may commit past an unfinished message"
        return lambda agent: self.agents.setdefault(name, agent)


@dataclass
class FakeChannel:
    """The channel of a stream: a queue of events, with None at its end."""

    queue: asyncio.Queue[FakeEvent | None] = field(default_factory=asyncio.Queue)

    async def get(self) -> FakeEvent:
        event = await self.queue.get()
        if event is None:
            raise StopAsyncIteration  # as Faust's channel does when its stream is stopped
        return event

    def empty(self) -> bool:
        return self.queue.empty()


@dataclass
class FakeStream:
    """A stream. `add` puts messages into it. `acknowledged` lists offsets in the order of their acknowledgement."""

    app: FakeApp = field(default_factory=FakeApp)
    channel: FakeChannel = field(default_factory=FakeChannel)
    should_stop: bool = False
    acknowledged: list[int] = field(default_factory=list)

    def end(self) -> None:
        """Stop the stream as Faust does: a reader that waits for an event gets StopAsyncIteration."""
        self.channel.queue.put_nowait(None)

    def add(self, *messages: FakeMessage) -> None:
        for message in messages:
            self.channel.queue.put_nowait(FakeEvent(message, self.acknowledged))
