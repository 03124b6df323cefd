"""Dead letters: a record as it was, with headers that say where it came from and why it could not be used. No I/O.

The names `__connect.errors.*` are Kafka Connect's, so that tools which know its dead letters can read these.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.cloudevents import InvalidEvent, without_trace
from schemas.records import Headers, Outgoing, Received

SUFFIX = "-dlt"
CONNECT = "__connect.errors."
TOPIC = CONNECT + "topic"
PARTITION = CONNECT + "partition"
OFFSET = CONNECT + "offset"
STAGE = CONNECT + "stage"
ERROR_CLASS = CONNECT + "exception.class.name"
ERROR_MESSAGE = CONNECT + "exception.message"
ATTEMPT = "crossfade.errors.attempt"
ERROR_HEADERS = frozenset({TOPIC, PARTITION, OFFSET, STAGE, ERROR_CLASS, ERROR_MESSAGE, ATTEMPT})
# With the names of the headers far below what a dead-letter topic takes beyond its source.
MESSAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as read: `original` is the record as it was, `letter` the record in the dead-letter topic.

    `partition` and `offset` are those of the original. `attempt` counts the tries before it was given up.
    """

    letter: Received
    original: Outgoing
    partition: int
    offset: int
    stage: str
    error_class: str
    message: str
    attempt: int


def dead_letter(record: Received, *, stage: str, error: Exception, attempt: int) -> Outgoing:
    """Return what to publish for a record that cannot be used: the same key, value and headers, and the error's.

    The trace context is left out, because the one who publishes adds its own. Kafka's clients refuse a record without
    key and value; such a one gets an empty key. `stage` is the role that gave up.
    """
    error_type = type(error)
    told = {
        TOPIC: record.topic,
        PARTITION: str(record.partition),
        OFFSET: str(record.offset),
        STAGE: stage,
        ERROR_CLASS: f"{error_type.__module__}.{error_type.__qualname__}",
        ERROR_MESSAGE: str(error),
        ATTEMPT: str(attempt),
    }
    headers = tuple((name, value.encode("utf-8", "replace")[:MESSAGE_BYTES]) for name, value in told.items())
    key = b"" if record.key is None and record.value is None else record.key
    return Outgoing(record.topic + SUFFIX, key, record.value, _original_headers(record) + headers)


def read_dead_letter(record: Received) -> DeadLetter:
    """Return a dead letter with its original. Raises InvalidEvent for a record that does not say where it came from."""
    topic, partition, offset = record.header(TOPIC), record.header(PARTITION), record.header(OFFSET)
    if not topic or partition is None or offset is None:
        raise InvalidEvent(f"no dead letter: the headers {TOPIC}, {PARTITION} and {OFFSET} are needed")
    try:
        numbers = int(partition), int(offset), int(record.header(ATTEMPT) or 1)
    except ValueError as error:
        raise InvalidEvent(f"no dead letter: a header is not a number: {error}") from error
    key = None if record.key == b"" and record.value is None else record.key
    return DeadLetter(
        letter=record,
        original=Outgoing(topic, key, record.value, _original_headers(record)),
        partition=numbers[0],
        offset=numbers[1],
        stage=record.header(STAGE) or "",
        error_class=record.header(ERROR_CLASS) or "",
        message=record.header(ERROR_MESSAGE) or "",
        attempt=numbers[2],
    )


def _original_headers(record: Received) -> Headers:
    return tuple((name, value) for name, value in without_trace(record.headers) if name not in ERROR_HEADERS)
