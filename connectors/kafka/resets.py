"""Makes aiokafka on uvloop treat a write to a connection that a broker has just reset as a broken connection.

asyncio's own loop drops such a write and reports the reset a moment later. uvloop raises RuntimeError, which aiokafka
expects nowhere: the error ended the fetcher of a consumer, or the sender of a producer, for good.
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
    """Make every aiokafka connection in this process do this; a second call changes nothing."""
    AIOKafkaConnection.send = _send
