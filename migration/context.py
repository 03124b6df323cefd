"""What handlers and tasks may need besides their ports: the clock, the current epochs, telemetry and limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from connectors.telemetry import Telemetry, Trace
from schemas.cloudevents import encode
from schemas.documents import Event
from schemas.keys import FIRST_EPOCH
from schemas.records import Outgoing
from schemas.settings import Kafka
from topics.catalogue import LOG, SUBMITTED

Clock = Callable[[], int]
"""Milliseconds since the epoch."""


def now_ms() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class HandlerContext:
    """The clock, the epochs of the log and of the submitted topic, counters, and limits.

    `kafka` has the limits of records, by topic.
    """

    clock: Clock
    epoch: int
    telemetry: Telemetry
    max_text_bytes: int = 1024 * 1024
    kafka: Kafka = field(default_factory=Kafka)
    producer_epoch: int = FIRST_EPOCH

    def epoch_of(self, topic: str) -> int:
        """Return the epoch of a topic.

        Topics other than these two have their epochs in the events, or in the topic's name.
        """
        return self.epoch if topic == LOG else self.producer_epoch if topic == SUBMITTED else FIRST_EPOCH

    def emit(
        self, event: Event, topic: str, key: str, *, event_id: str, source: str, trace: Trace | None = None
    ) -> Outgoing:
        """Return the record of an event that happens now.

        `trace` is that of the record that caused it; the event's trace context is taken from there.
        """
        traceparent = trace.sent(topic) if trace is not None else None
        return encode(
            event, topic=topic, key=key, event_id=event_id, source=source, time_ms=self.clock(), traceparent=traceparent
        )
