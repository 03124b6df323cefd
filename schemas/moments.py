"""Canonical text of dates and times, including those that Python's types cannot hold.

Databases have infinity, years before 1 and after 9999, dates whose month or day is zero, and times beyond a day. All
days are in the Gregorian calendar, even the earliest.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

_INFINITE = {"infinity": "infinity", "+infinity": "infinity", "-infinity": "-infinity"}
_DAY = r"([+-]?\d{4,7})-(\d\d)-(\d\d)"
_CLOCK = r"(\d{2}):(\d{2})(?::(\d{2})(?:\.(\d+))?)?"
_ZONE = r"(Z|[+-]\d{2}(?::?\d{2}){0,2})?"
_MOMENT = re.compile(rf"{_DAY}(?:[T ]{_CLOCK})? ?{_ZONE}( BC)?", re.ASCII)
_LONG_TIME = re.compile(r"(-?)(\d{1,3}):(\d{2})(?::(\d{2})(?:\.(\d+))?)?Z?", re.ASCII)
_MOST_HOURS = 838
_CYCLE_YEARS = 400  # after which the Gregorian calendar repeats
_EPOCH = datetime(1970, 1, 1)


def timestamp(value: Any) -> str:
    """Return a date and time without a zone; a given zone is dropped. Raises ValueError, TypeError."""
    return _moment(value, aware=False)


def instant(value: Any) -> str:
    """Return an instant in UTC; a value without a zone is in UTC already. Raises ValueError, TypeError."""
    return _moment(value, aware=True)


def day(value: Any) -> str:
    """Return a date; a given time of day is dropped. Raises ValueError, TypeError."""
    if isinstance(value, datetime):
        return value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    text = str(value)
    try:
        return date.fromisoformat(text if len(text) == 10 else text.rstrip("Z")).isoformat()
    except ValueError:
        whole = _unusual(text, aware=False)
        if whole in _INFINITE.values():
            return whole
        head, _, era = whole.partition("T")
        return head + (" BC" if era.endswith(" BC") else "")


def time_of_day(value: Any) -> str:
    """Return a time of day, or a span of up to 838 hours, which may be negative. Raises ValueError, TypeError."""
    if isinstance(value, time):
        return value.replace(tzinfo=None).isoformat(timespec="microseconds")
    text = str(value)
    try:
        return time.fromisoformat(_microseconds(text)).replace(tzinfo=None).isoformat(timespec="microseconds")
    except ValueError:
        found = _LONG_TIME.fullmatch(text)
        if found is None or int(found[2]) > _MOST_HOURS or int(found[3]) > 59 or int(found[4] or 0) > 59:
            raise
        micros = (found[5] or "")[:6].ljust(6, "0")
        return f"{found[1]}{int(found[2]):02d}:{found[3]}:{found[4] or '00'}.{micros}"


def timestamp_of(microseconds: int) -> str:
    """Return the timestamp that many microseconds after 1970. Raises OverflowError outside the years 1 to 9999."""
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds")


def day_of(days: int) -> str:
    """Return the date that many days after 1970-01-01. Raises OverflowError outside the years 1 to 9999."""
    return (_EPOCH + timedelta(days=days)).date().isoformat()


def time_of(microseconds: int) -> str:
    """Return the time that many microseconds after midnight; it may be negative or more than a day."""
    seconds, micros = divmod(abs(microseconds), 10**6)
    minutes, seconds = divmod(seconds, 60)
    return f"{'-' if microseconds < 0 else ''}{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}.{micros:06d}"


def _moment(value: Any, *, aware: bool) -> str:
    if isinstance(value, datetime):
        moment = value
    elif not isinstance(value, str):
        raise ValueError("neither text nor a time")
    else:
        try:
            moment = datetime.fromisoformat(_microseconds(value))
        except ValueError:
            return _unusual(value, aware=aware)
    if not aware:
        return moment.replace(tzinfo=None).isoformat(timespec="microseconds")
    if moment.tzinfo is not None:
        try:
            moment = moment.astimezone(UTC)
        except OverflowError:
            return _unusual(moment.isoformat(), aware=aware)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _microseconds(text: str) -> str:
    """Cut a fraction to six digits, because `fromisoformat` of Python 3.11 does not accept more."""
    head, dot, tail = text.partition(".")
    if not dot:
        return text
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return f"{head}.{tail[: min(digits, 6)]}{tail[digits:]}"


def _unusual(text: str, *, aware: bool) -> str:
    """Return the text of a moment that Python's types cannot hold. A zero month or day is kept, as MariaDB keeps it."""
    infinite = _INFINITE.get(text.strip().lower())
    if infinite is not None:
        return infinite
    found = _MOMENT.fullmatch(text.strip())
    if found is None:
        raise ValueError("no date")
    year, month, of_month = int(found[1]), int(found[2]), int(found[3])
    micros = int((found[7] or "")[:6].ljust(6, "0"))
    clock = time(int(found[4] or 0), int(found[5] or 0), int(found[6] or 0), micros)
    if found[9]:
        if year < 1:
            raise ValueError("no year before the first")
        year = 1 - year
    elif month == 0 or of_month == 0 or (year == 0 and not found[1].startswith(("+", "-"))):
        return _zero_date(found[1], month, of_month, clock) + ("Z" if aware else "")
    offset = _offset(found[8]) if aware else timedelta()
    like = 2000 + year % _CYCLE_YEARS
    moment = datetime.combine(date(like, month, of_month), clock) - offset
    return _text(year + moment.year - like, moment, "Z" if aware else "")


def _text(year: int, moment: datetime, zone: str) -> str:
    rest = moment.isoformat(timespec="microseconds")[4:]
    return f"{year:04d}{rest}{zone}" if year > 0 else f"{1 - year:04d}{rest}{zone} BC"


def _zero_date(year: str, month: int, of_month: int, clock: time) -> str:
    if len(year) != 4 or month > 12 or of_month > 31:
        raise ValueError("no date")
    return f"{year}-{month:02d}-{of_month:02d}T{clock.isoformat(timespec='microseconds')}"


def _offset(zone: str | None) -> timedelta:
    if zone in (None, "Z"):
        return timedelta()
    digits = (zone or "")[1:].replace(":", "").ljust(6, "0")
    size = timedelta(hours=int(digits[:2]), minutes=int(digits[2:4]), seconds=int(digits[4:6]))
    return -size if zone and zone[0] == "-" else size
