"""The only codec between events and CloudEvents 1.0 on Kafka. It writes binary mode and reads both modes.

Source: CloudEvents specification 1.0.2 and its Kafka protocol binding. No I/O and no clock: the caller passes the time.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeVar

import orjson
from pydantic import ValidationError

from schemas.documents import Event
from schemas.records import Headers, Outgoing, Received

E = TypeVar("E", bound=Event)

STRUCTURED = "application/cloudevents+json"
TRACE_HEADERS = ("traceparent", "tracestate")


class InvalidEvent(ValueError):
    """A record that is not a valid event of the expected type; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """The CloudEvents context attributes of a received record that crossfade uses."""

    id: str
    type: str | None
    source: str | None
    subject: str | None
    traceparent: str | None


def timestamp(time_ms: int) -> str:
    """Return a time in milliseconds since the epoch as RFC 3339 text in UTC, with milliseconds."""
    return f"{_to_the_second(time_ms // 1000)}.{time_ms % 1000:03d}Z"


@lru_cache(maxsize=16)
def _to_the_second(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def encode(
    event: Event,
    *,
    topic: str,
    key: str,
    event_id: str,
    source: str,
    time_ms: int,
    traceparent: str | None = None,
) -> Outgoing:
    """Return the record of an event in binary mode: attributes in `ce_` headers, the data as JSON in the value."""
    headers: list[tuple[str, bytes]] = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", event.ce_type.encode()),
        ("ce_subject", key.encode()),
        ("ce_time", timestamp(time_ms).encode()),
        ("content-type", b"application/json"),
    ]
    if traceparent:
        headers.append(("traceparent", traceparent.encode()))
    return Outgoing(topic, key.encode(), event.model_dump_json().encode(), tuple(headers))


def without_trace(headers: Headers) -> Headers:
    """Return the headers without the trace context, so that a forwarded record never carries two."""
    return tuple((name, value) for name, value in headers if name not in TRACE_HEADERS)


def decode(record: Received, model: type[E]) -> tuple[E, Attributes]:
    """Return the event in a record and its attributes.

    Raises InvalidEvent when the value is missing, is not JSON, is not of the model, or names another type.
    """
    attributes, data = unwrap(record)
    if data is None:
        raise InvalidEvent(f"no value: expected {model.ce_type}")
    if attributes.type is not None and attributes.type != model.ce_type:
        raise InvalidEvent(f"ce_type is {attributes.type!r}, expected {model.ce_type!r}")
    try:
        return model.model_validate_json(data), attributes
    except ValidationError as error:
        raise InvalidEvent(explain(error)) from error


def unwrap(record: Received) -> tuple[Attributes, bytes | None]:
    """Return the attributes and raw JSON data of a record in either mode. Raises InvalidEvent for a broken envelope."""
    if record.unread:
        raise InvalidEvent(unreadable(record))
    headers = {name.lower(): value for name, value in record.headers}
    content_type = _text(headers, "content-type") or ""
    if record.value is not None and content_type.startswith(STRUCTURED):
        return _unwrap_structured(record, headers)
    attributes = Attributes(
        id=_text(headers, "ce_id") or record.place,
        type=_text(headers, "ce_type"),
        source=_text(headers, "ce_source"),
        subject=_text(headers, "ce_subject"),
        traceparent=_text(headers, "traceparent"),
    )
    return attributes, record.value


def unreadable(record: Received) -> str:
    """Return the error message for a record that could not be read."""
    many = f"a batch of {record.records} records that ends here" if record.records > 1 else "the record"
    return f"{many} cannot be read: {record.unread}"


def _text(headers: dict[str, bytes], name: str) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("utf-8", "replace")


def _unwrap_structured(record: Received, headers: dict[str, bytes]) -> tuple[Attributes, bytes | None]:
    try:
        envelope = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError as error:
        raise InvalidEvent(f"structured CloudEvent is not JSON: {error}") from error
    if not isinstance(envelope, dict) or envelope.get("specversion") != "1.0":
        raise InvalidEvent("structured CloudEvent without specversion 1.0")
    missing = [name for name in ("id", "source", "type") if not isinstance(envelope.get(name), str)]
    if missing:
        raise InvalidEvent(f"structured CloudEvent without {', '.join(missing)}")
    data: bytes | None = None
    if "data_base64" in envelope:
        try:
            data = base64.b64decode(envelope["data_base64"], validate=True)
        except (ValueError, TypeError) as error:
            raise InvalidEvent(f"data_base64 is not base64: {error}") from error
    elif envelope.get("data") is not None:
        try:
            data = orjson.dumps(envelope["data"])
        except TypeError as error:  # nested too deep to be written
            raise InvalidEvent(f"the data of a structured CloudEvent cannot be used: {error}") from error
    subject = envelope.get("subject")
    traceparent = _text(headers, "traceparent") or envelope.get("traceparent")
    attributes = Attributes(
        id=envelope["id"],
        type=envelope["type"],
        source=envelope["source"],
        subject=subject if isinstance(subject, str) else None,
        traceparent=traceparent if isinstance(traceparent, str) else None,
    )
    return attributes, data


def explain(error: ValidationError) -> str:
    """Return the first three validation errors in one line, without the values (they may be a document's text)."""
    faults = [
        f"{'.'.join(str(part) for part in fault['loc']) or 'event'}: {fault['msg']}"
        for fault in error.errors(include_input=False, include_url=False, include_context=False)
    ]
    more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
    return "; ".join(faults[:3]) + more
