"""Faust's Kafka transport with a shorter way from the consumer to a channel that has room.

Faust guards each delivery of a message by four tasks, because it may have to wait: for a full buffer, or for the end of
a rebalance. Under load that costs more than the agents do, and a message needs several turns of the event loop. Where
nothing can be waited for, the delivery is simply made; else it is Faust's own way. Keys and values stay bytes, so there
is nothing to deserialize either.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from faust import Event, Schema
from faust.transport.drivers.aiokafka import Consumer, Transport


class PromptConsumer(Consumer):
    """A consumer that delivers at once where there is room."""

    async def wait_first(self, *coros: Any, timeout: Any = None) -> Any:  # noqa: ASYNC109 - Faust's own signature
        """Await the first of the given coroutines to finish; a delivery (and its interruption) is made at once."""
        if len(coros) == 2 and self._can_deliver():
            delivery, interruption = coros
            interruption.close()
            return await delivery
        return await super().wait_first(*coros, timeout=timeout)

    def _can_deliver(self) -> bool:
        app = self.app
        return app.flow_control.is_active() and not any(topic.queue.full() for topic in app.topics)


class PromptTransport(Transport):
    """Faust's transport over aiokafka with `PromptConsumer`."""

    Consumer = PromptConsumer


class RawSchema(Schema[Any, Any]):
    """Events with the bytes of their message."""

    def compile(self, app: Any, **_: Any) -> Callable[..., Awaitable[Any]]:
        """Return what makes a message an event."""

        async def decode(message: Any, **_: Any) -> Any:
            return Event(app, message.key, message.value, None, message)

        return decode
