"""Dead letters: records that could not be used, with headers for their origin and for the error. No I/O.

A letter that is too large for its dead-letter topic is cut and keeps the length and SHA-256 of each part that was cut.
The names `__connect.errors.*` are Kafka Connect's, so that tools for its dead letters can read these, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import orjson

from schemas.cloudevents import InvalidEvent, without_trace
from schemas.records import Headers, Outgoing, Received, size_of, size_of_headers

SUFFIX = "-dlt"
CONNECT = "__connect.errors."
TOPIC = CONNECT + "topic"
PARTITION = CONNECT + "partition"
OFFSET = CONNECT + "offset"
STAGE = CONNECT + "stage"
ERROR_CLASS = CONNECT + "exception.class.name"
ERROR_MESSAGE = CONNECT + "exception.message"
ATTEMPT = "crossfade.errors.attempt"
CUT = "crossfade.errors.cut"
RECORDS = "crossfade.errors.unread.records"
TIMESTAMP = "crossfade.errors.timestamp"
EPOCH = "crossfade.errors.epoch"
ERROR_HEADERS = frozenset({TOPIC, PARTITION, OFFSET, STAGE, ERROR_CLASS, ERROR_MESSAGE, ATTEMPT, TIMESTAMP, EPOCH})
_OURS = ERROR_HEADERS | {CUT, RECORDS}
# The limit of each error header. With their names, all of them stay far below what a dead-letter topic takes beyond
# its source.
MESSAGE_BYTES = 4096
# The epoch of a letter without the epoch header: topics were never recreated before letters had that header.
_FIRST_EPOCH = 1
# The most that a cut letter keeps of a key and of the headers.
_KEY_BYTES = 4096
_HEADER_BYTES = 16 * 1024
_UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as read: `original` is the record that failed, `letter` the record in the dead-letter topic.

    `partition` and `offset` are those of the original. `attempt` counts the attempts before the role gave up. `unread`
    counts the records up to that offset that could not be read. It is 0 if the record was read; otherwise the value of
    the original is the bytes that the broker keeps. `time_ms` is the time of the original, 0 if the letter has none.
    `epoch` is the epoch of the original's topic, whose offsets start again with each epoch. `cut` names the parts (key,
    value, headers) that were cut, with their length and hash.
    """

    letter: Received
    original: Outgoing
    partition: int
    offset: int
    stage: str
    error_class: str
    message: str
    attempt: int
    unread: int = 0
    time_ms: int = 0
    epoch: int = _FIRST_EPOCH
    cut: Mapping[str, Any] = field(default_factory=dict)


def dead_letter(
    record: Received,
    *,
    stage: str,
    error: Exception,
    attempt: int,
    limit: int = _UNLIMITED,
    epoch: int = _FIRST_EPOCH,
) -> Outgoing:
    """Return the dead letter to publish for a record: its key, value and headers, and the error headers.

    The trace context is left out, because the publisher adds its own. Kafka's clients refuse a record without key and
    value, so such a letter gets an empty key. `stage` is the role that gave up. A letter above `limit` bytes is cut.
    `epoch` is the epoch of the record's topic.
    """
    error_type = type(error)
    described = {
        TOPIC: record.topic,
        PARTITION: str(record.partition),
        OFFSET: str(record.offset),
        STAGE: stage,
        ERROR_CLASS: f"{error_type.__module__}.{error_type.__qualname__}",
        ERROR_MESSAGE: str(error),
        ATTEMPT: str(attempt),
        TIMESTAMP: str(record.timestamp_ms),
        EPOCH: str(epoch),
    }
    if record.unread:
        described[RECORDS] = str(record.records)
    headers = tuple((name, value.encode("utf-8", "replace")[:MESSAGE_BYTES]) for name, value in described.items())
    key = b"" if record.key is None and record.value is None else record.key
    whole = Outgoing(record.topic + SUFFIX, key, record.value, _original_headers(record) + headers)
    return whole if size_of(whole) <= limit else _cut(whole, headers, limit)


def _cut(whole: Outgoing, described: Headers, limit: int) -> Outgoing:
    """Return a letter that fits: key and headers are shortened to fixed limits, the value to the space that is left."""
    original = whole.headers[: len(whole.headers) - len(described)]
    key = whole.key if whole.key is None else whole.key[:_KEY_BYTES]
    kept = original if size_of_headers(original) <= _HEADER_BYTES else _first(original, _HEADER_BYTES)
    cut: dict[str, Any] = {}
    if key != whole.key:
        cut["key"] = _described(whole.key or b"")
    if kept != original:
        cut["headers"] = {**_described(b"".join([f"{n}\0".encode() + v for n, v in original])), "count": len(original)}
    letter = Outgoing(whole.topic, key, b"", (*kept, *described))
    # Reserve the bytes that the description of a cut value takes.
    room = limit - size_of(letter) - size_of_headers(_mark({**cut, "value": _described(b"") | {"bytes": 1 << 40}}))
    if whole.value is None or len(whole.value) <= room:
        return letter._replace(value=whole.value, headers=(*letter.headers, *_mark(cut)))
    cut["value"] = _described(whole.value)
    return letter._replace(value=whole.value[: max(0, room)], headers=(*letter.headers, *_mark(cut)))


def _first(headers: Headers, room: int) -> Headers:
    kept: list[tuple[str, bytes]] = []
    for name, value in headers:
        room -= size_of_headers(((name, value),))
        if room < 0:
            break
        kept.append((name, value))
    return tuple(kept)


def _described(part: bytes) -> dict[str, Any]:
    return {"bytes": len(part), "sha256": sha256(part).hexdigest()}


def _mark(cut: Mapping[str, Any]) -> Headers:
    return ((CUT, orjson.dumps(cut)),)


def read_dead_letter(record: Received) -> DeadLetter:
    """Return a dead letter with its original. Raises InvalidEvent for a record without the headers of its origin."""
    topic, partition, offset = record.header(TOPIC), record.header(PARTITION), record.header(OFFSET)
    if not topic or partition is None or offset is None:
        raise InvalidEvent(f"no dead letter: the headers {TOPIC}, {PARTITION} and {OFFSET} are needed")
    try:
        numbers = int(partition), int(offset), int(record.header(ATTEMPT) or 1), int(record.header(RECORDS) or 0)
        time_ms, epoch = int(record.header(TIMESTAMP) or 0), int(record.header(EPOCH) or _FIRST_EPOCH)
        cut = orjson.loads(record.header(CUT) or "{}")
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
        unread=numbers[3],
        time_ms=time_ms,
        epoch=epoch,
        cut=cut if isinstance(cut, dict) else {},
    )


def _original_headers(record: Received) -> Headers:
    return tuple((name, value) for name, value in without_trace(record.headers) if name not in _OURS)
