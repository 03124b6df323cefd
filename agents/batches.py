"""Batches straight from a Faust stream's channel: what is there now, without waiting for more to come.

`Stream.take` waits `within` for a batch to fill and costs a pass through the stream for each event; a hop here costs
neither. A role whose last batch held several events waits until `interval_s` after that batch began: under load this
makes batches large, which costs every store and broker less, and a lone event never waits.

Events are acknowledged in the order of their arrival, after the batch was handled: Faust commits the end of the first
run of acknowledged offsets, which is only safe in order. Nothing is acknowledged when the body raises.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from schemas.records import Received


async def batches(stream: Any, limit: int, interval_s: float = 0.0) -> AsyncIterator[tuple[list[Any], list[Received]]]:
    """Yield (events, records) of at least one and at most `limit`; acknowledge with `acknowledge` when handled.

    Events of an older generation of the group's assignment are left out: after a rebalance they are delivered again.
    """
    channel = stream.channel
    begun, several = 0.0, False
    while not stream.should_stop:
        if several:
            await asyncio.sleep(begun + interval_s - time.monotonic())
        try:
            events = [await channel.get()]
        except StopAsyncIteration:  # what Faust throws into the channel of a stream that it stops
            return
        begun = time.monotonic()
        while len(events) < limit and not channel.empty():
            events.append(channel.queue.get_nowait())
        several = len(events) > 1
        current = [event for event in events if _is_current(stream.app, event.message)]
        if current:
            for event in current:
                _track(stream.app, event.message)
            yield current, [received(event.message) for event in current]


def acknowledge(stream: Any, events: list[Any]) -> None:
    """Mark events as done, in order, so that their offsets may be committed."""
    for event in events:
        event.ack()


def received(message: Any) -> Received:
    """Return a Faust message as a plain record."""
    headers = message.headers or ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    return Received(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=message.value,
        headers=tuple([(name, value or b"") for name, value in pairs]),
        timestamp_ms=int(message.timestamp * 1000) if message.timestamp else 0,
    )


def _is_current(app: Any, message: Any) -> bool:
    return bool(app.flow_control.is_active() and message.generation_id == app.consumer_generation_id)


def _track(app: Any, message: Any) -> None:
    if not message.tracked:
        message.tracked = True
        app.consumer.track_message(message)
