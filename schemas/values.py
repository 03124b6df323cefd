"""Metadata values in one canonical form, whether they come from a producer's JSON, Debezium, or SQL.

Without it the same row would have one hash when captured and another when read. Times are ISO 8601 in UTC with
microseconds (see `schemas.moments`), decimals are plain strings without trailing zeros, UUIDs are lower case. Values
for which JSON has no number are text: `NaN`, `Infinity`, integers of 2^63 and above.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import orjson

from schemas import moments
from schemas.content import Scalar

# The limits of PostgreSQL's numeric, the widest type: `1e999999999` written out would exhaust the memory.
_DIGITS_BEFORE_POINT = 131_072
_DIGITS_AFTER_POINT = 16_383
# Fewer levels than Python's stack allows at any call site, so that a value always gets the same form.
_DEEPEST = 100
_exact_json = msgspec.json.Decoder(float_hook=Decimal).decode
_NOT_FINITE = {
    "nan": "NaN",
    "inf": "Infinity",
    "infinity": "Infinity",
    "+infinity": "Infinity",
    "-inf": "-Infinity",
    "-infinity": "-Infinity",
}


class Kind(Enum):
    """The kinds of metadata columns; each SQL type that crossfade supports has one of them.

    PADDED is text whose trailing blanks have no meaning. FLAG is a boolean that may also hold other small integers.
    """

    TEXT = "text"
    PADDED = "padded text"
    INTEGER = "integer"
    FLOAT = "float"
    FLOAT32 = "float32"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    FLAG = "flag"
    TIMESTAMP = "timestamp"
    TIMESTAMPTZ = "timestamptz"
    DATE = "date"
    TIME = "time"
    UUID = "uuid"
    JSON = "json"


def canonical(kind: Kind, value: Any) -> Scalar:
    """Return the canonical form of a column value. Raises ValueError if the value is not of that kind."""
    if value is None:
        return None
    try:
        return _FORMS[kind](value)
    except (TypeError, ValueError, InvalidOperation, OverflowError, RecursionError) as error:
        raise ValueError(f"{type(value).__name__} is not a valid {kind.value}") from error


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float, Decimal)):
        return str(value)
    raise ValueError


def _padded(value: Any) -> str:
    return _text(value).rstrip(" ")


def _integer(value: Any) -> int | str:
    number = int(value)
    if isinstance(value, (float, Decimal)) and number != value:
        raise ValueError
    if not -(2**63) <= number < 2**64:  # beyond any SQL integer
        raise ValueError
    return number if number < 2**63 else str(number)  # a payload cannot hold a larger number


def _not_finite(value: Any) -> str | None:
    """Return the canonical form of NaN or an infinity, None for a finite number."""
    return _NOT_FINITE.get(str(value).strip().lower())


def _float(value: Any) -> float | str:
    named = _not_finite(value)
    if named is not None:
        return named
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number + 0.0  # turns negative zero into zero, which is equal to it


def _float32(value: Any) -> float | str:
    """Return the shortest number that is this 32-bit float: drivers print it with 6, 9 or 17 digits."""
    given = _float(value)
    if isinstance(given, str):
        return given
    wanted = struct.pack("<f", given)
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
    named = _not_finite(value)
    if named is not None:
        return named
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


def _flag(value: Any) -> bool | int:
    if isinstance(value, str) and value.lower() in {"true", "t", "false", "f"}:
        return _boolean(value)
    number = _integer(value)
    if not isinstance(number, int) or not -128 <= number < 256:
        raise ValueError
    return bool(number) if number in (0, 1) else number


def _uuid(value: Any) -> str:
    return str(value if isinstance(value, UUID) else UUID(str(value)))


def _json(value: Any) -> str:
    """Return JSON with sorted keys and canonical numbers, exact at any length.

    JSON that is nested too deep is kept as the database writes it.
    """
    try:
        # Databases accept more digits and larger exponents than a float has.
        text = _written(_exact_json(value) if isinstance(value, (str, bytes)) else value, _DEEPEST)
    except RecursionError:
        if not isinstance(value, str):
            raise ValueError from None
        text = value
    text.encode()  # raises for a lone surrogate, which is no text
    return text


def _written(value: Any, deepest: int) -> str:
    if deepest == 0:
        raise RecursionError
    if value is None or isinstance(value, (bool, str)):
        return orjson.dumps(value).decode()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (float, Decimal)):
        if _not_finite(value):
            raise ValueError
        return _decimal(value)
    if isinstance(value, dict):
        pairs = [(orjson.dumps(name).decode(), _written(each, deepest - 1)) for name, each in value.items()]
        return "{" + ",".join(f"{name}:{each}" for name, each in sorted(pairs)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_written(each, deepest - 1) for each in value) + "]"
    raise ValueError


_FORMS: dict[Kind, Callable[[Any], Scalar]] = {
    Kind.TEXT: _text,
    Kind.PADDED: _padded,
    Kind.INTEGER: _integer,
    Kind.FLOAT: _float,
    Kind.FLOAT32: _float32,
    Kind.DECIMAL: _decimal,
    Kind.BOOLEAN: _boolean,
    Kind.FLAG: _flag,
    Kind.TIMESTAMP: moments.timestamp,
    Kind.TIMESTAMPTZ: moments.instant,
    Kind.DATE: moments.day,
    Kind.TIME: moments.time_of_day,
    Kind.UUID: _uuid,
    Kind.JSON: _json,
}
