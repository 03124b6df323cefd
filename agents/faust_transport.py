"""Faust's Kafka transport with a shorter path from the consumer to a channel that has room.

Faust guards each delivery of a message with four tasks, because it may have to wait: for a full buffer, or for the end
of a rebalance. Under load that costs more than the agents do, and a message needs several turns of the event loop. If
there is nothing to wait for, this transport delivers directly; otherwise it delivers as Faust does. Keys and values
stay bytes, so there is nothing to deserialize either.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

from faust import Event, Schema
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport

from agents.batches import bytes_of
from connectors.kafka.consumer import FETCH_BYTES, READ_COMMITTED

_ROOM_POLL_S = 0.005


class CommittedThread(AIOKafkaConsumerThread):
    """The thread of a consumer that never sees a record of an aborted transaction."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        # Faust sets the isolation only if it is exactly-once itself, and leaves the fetch size at the client's default.
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = READ_COMMITTED
        consumer._fetch_max_bytes = FETCH_BYTES
        return consumer


class Held:
    """The sizes of the records in a buffer, first in, first out."""

    def __init__(self) -> None:
        self.sizes: deque[int] = deque()
        self._total = 0

    def add(self, size: int) -> None:
        """Add the size of one more record."""
        self.sizes.append(size)
        self._total += size

    def keep(self, count: int) -> int:
        """Forget all but the newest `count` sizes, and return their sum."""
        while len(self.sizes) > count:
            self._total -= self.sizes.popleft()
        return self._total


class PromptConsumer(Consumer):
    """A consumer that delivers at once if there is room, both in records (the buffer's size) and in bytes."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._held = Held()

    def _new_consumer_thread(self) -> Any:
        return CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[Any]:  # noqa: ASYNC109 - Faust's own signature
        """Yield the fetched records, each once the buffers have room for its bytes."""
        limit = cast(PromptTransport, self.transport).buffer_bytes
        async for at, message in super().getmany(timeout):
            size = bytes_of(message)
            while self.app.flow_control.is_active() and not self.should_stop and self._held_bytes() + size > limit:
                if not self._held.sizes:  # an empty buffer takes any record
                    break
                await asyncio.sleep(_ROOM_POLL_S)
            self._held.add(size)
            yield at, message

    def _held_bytes(self) -> int:
        """Return the bytes in the buffers, without the records that the agent took or a rebalance discarded."""
        return self._held.keep(sum(topic.queue.qsize() for topic in self.app.topics))

    async def wait_first(self, *coros: Any, timeout: Any = None) -> Any:  # noqa: ASYNC109 - Faust's own signature
        """Await the first of the coroutines to finish; if there is room, deliver at once and drop the interruption."""
        if len(coros) == 2 and self._can_deliver():
            delivery, interruption = coros
            interruption.close()
            return await delivery
        return await super().wait_first(*coros, timeout=timeout)

    def _can_deliver(self) -> bool:
        app = self.app
        return app.flow_control.is_active() and not any(topic.queue.full() for topic in app.topics)


class PromptTransport(Transport):
    """Faust's transport over aiokafka with `PromptConsumer`, whose buffers hold at most `buffer_bytes`."""

    Consumer = PromptConsumer

    def __init__(self, urls: Any, app: Any, *, buffer_bytes: int) -> None:
        super().__init__(urls, app)
        self.buffer_bytes = buffer_bytes


class RawSchema(Schema[Any, Any]):
    """A schema whose events carry the raw bytes of their message."""

    def compile(self, app: Any, **_: Any) -> Callable[..., Awaitable[Any]]:
        """Return the function that turns a message into an event."""

        async def decode(message: Any, **_: Any) -> Any:
            return Event(app, message.key, message.value, None, message)

        return decode
