"""aiokafka on uvloop: a write on a connection that a broker has just reset is a broken connection, and no more.

asyncio's own loop drops such a write and tells of the reset a moment later; uvloop raises RuntimeError, which aiokafka
expects nowhere: it ended the fetcher of a consumer, or the sender of a producer, for good.
"""

from __future__ import annotations

import functools
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

_sent = AIOKafkaConnection.send


@functools.wraps(_sent)
def _send(self: Any, *given: Any, **named: Any) -> Any:
    try:
        return _sent(self, *given, **named)
    except RuntimeError as error:
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error


def survive_resets() -> None:
    """Have every connection of aiokafka in this process do so; twice is once."""
    AIOKafkaConnection.send = _send
