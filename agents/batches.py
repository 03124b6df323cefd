"""Batches read directly from a Faust stream's channel: the events that are there, without waiting for more.

`Stream.take` waits `within` for a batch to fill and costs a pass through the stream for each event; a batch here costs
neither. If the last batch of a role held several events, the next one waits until `interval_s` after that batch began.
Under load this makes batches large, which costs every store and broker less. A lone event never waits.

Events are acknowledged in the order of their arrival, after their batch was handled. Faust commits the end of the first
run of acknowledged offsets, which is safe only in that order. Nothing is acknowledged when the body raises.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from connectors.kafka.consumer import PASSED_OVER, Unread
from schemas.records import Received


async def batches(
    stream: Any, limit: int, limit_bytes: int, interval_s: float = 0.0
) -> AsyncIterator[tuple[list[Any], list[Received]]]:
    """Yield (events, records) of at most `limit` events; call `acknowledge` when they are handled.

    A batch ends with the record that brings it to `limit_bytes`. Events of an older generation of the group's
    assignment are left out: they are delivered again after the rebalance. An event that stands for offsets with nothing
    to handle has no record, so a batch may have events but no records.
    """
    channel = stream.channel
    begun, several = 0.0, False
    while not stream.should_stop:
        if several:
            await asyncio.sleep(begun + interval_s - time.monotonic())
        try:
            events = [await channel.get()]
        except StopAsyncIteration:  # Faust throws this into the channel of a stream that it stops
            return
        begun, size = time.monotonic(), bytes_of(events[0].message)
        while len(events) < limit and size < limit_bytes and not channel.empty():
            events.append(channel.queue.get_nowait())
            size += bytes_of(events[-1].message)
        several = len(events) > 1
        current = [event for event in events if _is_current(stream.app, event.message)]
        if current:
            for event in current:
                _track(stream.app, event.message)
            yield current, [received(event.message) for event in current if event.message.value is not PASSED_OVER]


def acknowledge(stream: Any, events: list[Any]) -> None:
    """Mark events as done, in order, so that their offsets can be committed."""
    for event in events:
        event.ack()


def received(message: Any) -> Received:
    """Return a Faust message as a plain record."""
    headers = message.headers or ()
    value = message.value
    pairs = headers.items() if isinstance(headers, dict) else headers
    read = Received(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=value,
        headers=tuple([(name, content or b"") for name, content in pairs]),
        timestamp_ms=int(message.timestamp * 1000) if message.timestamp else 0,
    )
    return read._replace(unread=value.reason, records=value.records) if isinstance(value, Unread) else read


def bytes_of(message: Any) -> int:
    """Return the size in bytes of a Faust message's key, value and headers."""
    headers = message.headers or ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    value = message.value if isinstance(message.value, bytes) else b""
    return len(message.key or b"") + len(value) + sum([len(name) + len(content or b"") for name, content in pairs])


def _is_current(app: Any, message: Any) -> bool:
    return bool(app.flow_control.is_active() and message.generation_id == app.consumer_generation_id)


def _track(app: Any, message: Any) -> None:
    if not message.tracked:
        message.tracked = True
        app.consumer.track_message(message)
