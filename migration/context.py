"""What handlers and tasks may need besides their ports: the clock, the current epochs, telemetry and limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from connectors.telemetry import Telemetry
from domain.keys import FIRST_EPOCH
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
