"""Turns a file of documents into records of the submission topic, as any other producer would publish them."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import orjson
from pydantic import ValidationError

from operations.errors import CommandError
from schemas.cloudevents import encode
from schemas.documents import DocumentSubmitted
from schemas.records import Outgoing
from topics.catalogue import SUBMITTED

SOURCE = "crossfade/submit"
STANDARD_INPUT = "-"
_RECORDS_AT_ONCE = 500
_BYTES_AT_ONCE = 8 * 1024 * 1024
_USAGE_ERROR = 2


def batches(file: Path) -> Iterator[list[Outgoing]]:
    """Yield the documents of a file, one JSON object per line, as records: up to 500 or some megabytes at a time.

    Raises CommandError, with the line's number, at the first line that is not a document. The batches before it were
    yielded.
    """
    batch: list[Outgoing] = []
    size = 0
    for number, line in _lines(file):
        batch.append(submission_record(number, line))
        size += len(line)
        if len(batch) == _RECORDS_AT_ONCE or size >= _BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def submission_record(number: int, line: bytes) -> Outgoing:
    """Return the record of a line. `{"collection": …, "id": …, "delete": true}` is a deletion. Raises CommandError."""
    try:
        data = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _refused(number, f"it is not JSON: {error}") from None
    if not isinstance(data, dict) or not {"collection", "id"} <= data.keys():
        raise _refused(number, "it is not an object with collection and id")
    key = f"{data['collection']}/{data['id']}"
    event_id = uuid.uuid4().hex
    if data.get("delete") is True:
        return Outgoing(SUBMITTED, key.encode(), None, (("ce_id", event_id.encode()),))
    try:
        event = DocumentSubmitted.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _refused(number, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    now_ms = time.time_ns() // 1_000_000
    return encode(event, topic=SUBMITTED, key=key, event_id=event_id, source=SOURCE, time_ms=now_ms)


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with sys.stdin.buffer if str(file) == STANDARD_INPUT else file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror or error}.", "", _USAGE_ERROR) from None


def _refused(number: int, why: str) -> CommandError:
    return CommandError(
        f"Line {number} is not a document: {why}.",
        'A line is {"collection": "…", "id": "…", "text": "…"}; `crossfade schemas export DIR` writes its schema.',
        _USAGE_ERROR,
    )
