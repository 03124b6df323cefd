"""What a handler receives and returns: messages with their traces, and failures. Values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from connectors.telemetry import Trace
from schemas.records import Received


@dataclass(frozen=True, slots=True)
class Message:
    """One received record and its trace."""

    record: Received
    trace: Trace = field(default_factory=Trace)


@dataclass(frozen=True, slots=True)
class Failure:
    """A message that its handler cannot process, for a permanent reason; it goes to the dead-letter topic."""

    message: Message
    error: Exception


Batch = Sequence[Message]
Failures = list[Failure]
