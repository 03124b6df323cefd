"""Metadata values in one canonical form, whichever way they came: producer's JSON, Debezium, or SQL.

Without it the same row would have one hash when captured and another when read. Times are ISO 8601 in UTC with
microseconds, decimals plain strings without trailing zeros, UUIDs lower case.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any
from uuid import UUID

import orjson

from schemas.content import Scalar

# The bounds of PostgreSQL's numeric, the widest: `1e999999999` written out would take the memory of the process.
_DIGITS_BEFORE_POINT = 131_072
_DIGITS_AFTER_POINT = 16_383


class Kind(Enum):
    """The kinds of metadata columns; each SQL type that crossfade supports is of one of them."""

    TEXT = "text"
    INTEGER = "integer"
    FLOAT = "float"
    FLOAT32 = "float32"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    TIMESTAMPTZ = "timestamptz"
    DATE = "date"
    TIME = "time"
    UUID = "uuid"
    JSON = "json"


def canonical(kind: Kind, value: Any) -> Scalar:
    """Return the canonical form of a column value. Raises ValueError when the value is not of that kind."""
    if value is None:
        return None
    try:
        return _FORMS[kind](value)
    except (TypeError, ValueError, InvalidOperation, OverflowError) as error:
        raise ValueError(f"{type(value).__name__} is not a valid {kind.value}") from error


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float, Decimal)):
        return str(value)
    raise ValueError


def _integer(value: Any) -> int:
    number = int(value)
    if isinstance(value, (float, Decimal)) and number != value:
        raise ValueError
    if not -(2**63) <= number < 2**64:  # beyond any SQL integer, and no JSON writer here takes it
        raise ValueError
    return number


def _float(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _float32(value: Any) -> float:
    """The shortest number that is this float of 32 bits: drivers print it with 6, 9 or 17 digits."""
    wanted = struct.pack("<f", _float(value))
    number = struct.unpack("<f", wanted)[0]
    for digits in range(6, 9):
        shorter = float(f"{number:.{digits}g}")
        if struct.pack("<f", shorter) == wanted:
            return shorter
    return float(f"{number:.9g}")


def _places(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def _decimal(value: Any) -> str:
    number = Decimal(str(value))
    if not number.is_finite() or number.adjusted() >= _DIGITS_BEFORE_POINT or _places(number) > _DIGITS_AFTER_POINT:
        raise ValueError
    plain = format(number, "f")
    trimmed = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if trimmed in {"", "-0"} else trimmed


def _boolean(value: Any) -> bool:
    if isinstance(value, (bool, int)) and value in (0, 1):
        return bool(value)
    if isinstance(value, bytes) and value in (b"\x00", b"\x01"):
        return value == b"\x01"
    if isinstance(value, str) and value.lower() in {"true", "t", "1", "false", "f", "0"}:
        return value.lower() in {"true", "t", "1"}
    raise ValueError


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        raise ValueError
    return datetime.fromisoformat(_microseconds(value))


def _microseconds(text: str) -> str:
    """Cut a fraction of more than six digits, which `fromisoformat` of Python 3.11 does not take."""
    head, dot, tail = text.partition(".")
    if not dot:
        return text
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return f"{head}.{tail[: min(digits, 6)]}{tail[digits:]}"


def _timestamp(value: Any) -> str:
    moment = _moment(value)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds")


def _timestamptz(value: Any) -> str:
    moment = _moment(value)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _date(value: Any) -> str:
    if isinstance(value, datetime):
        return value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    text = str(value).rstrip("Z")
    # What follows the date must be a time of day: `0044-03-15 BC` is another day.
    return (date.fromisoformat(text) if len(text) <= 10 else _moment(text).date()).isoformat()


def _time(value: Any) -> str:
    moment = value if isinstance(value, time) else time.fromisoformat(_microseconds(str(value)))
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds")


def _uuid(value: Any) -> str:
    return str(value if isinstance(value, UUID) else UUID(str(value)))


def _json(value: Any) -> str:
    parsed = orjson.loads(value) if isinstance(value, (str, bytes)) else value
    return orjson.dumps(parsed, option=orjson.OPT_SORT_KEYS).decode()


_FORMS: dict[Kind, Callable[[Any], Scalar]] = {
    Kind.TEXT: _text,
    Kind.INTEGER: _integer,
    Kind.FLOAT: _float,
    Kind.FLOAT32: _float32,
    Kind.DECIMAL: _decimal,
    Kind.BOOLEAN: _boolean,
    Kind.TIMESTAMP: _timestamp,
    Kind.TIMESTAMPTZ: _timestamptz,
    Kind.DATE: _date,
    Kind.TIME: _time,
    Kind.UUID: _uuid,
    Kind.JSON: _json,
}
