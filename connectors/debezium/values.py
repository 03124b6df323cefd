"""Turns column values as Debezium writes them into canonical form. An ambiguous value raises InexactValue.

Debezium cannot carry every value. MariaDB's zero dates arrive as NULL, as 1970 or as the column's default. PostgreSQL's
infinity arrives as a year, and a snapshot's dates before the year 1 as dates after it. A comma in a label of a MariaDB
ENUM arrives behind a backslash, and zeros at the end of a MariaDB UUID at its front. A row with a value that may stand
for another is read again from its table. Seen with Debezium 3.5; `tests/stack/test_column_values.py` has each case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from domain.legacy import ColumnDetails
from schemas import moments
from schemas.content import Scalar
from schemas.values import Kind, canonical

# Outside these years, a snapshot uses the Julian calendar, or Debezium's numbers overflow.
_FIRST_SURE_YEAR, _LAST_SURE_YEAR = 1583, 9999
_NOT_FINITE = {"POSITIVE_INFINITY": "Infinity", "NEGATIVE_INFINITY": "-Infinity"}
_OF_NUMBERS: dict[Kind, Callable[[int], str]] = {
    Kind.DATE: moments.day_of,
    Kind.TIME: moments.time_of,
    Kind.TIMESTAMP: moments.timestamp_of,
}
_WITH_YEAR = frozenset({Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ})


class InexactValue(ValueError):
    """A captured value may differ from what the row holds."""


class CapturedValues:
    """Reads the values of one captured row.

    `snapshot` is true if a snapshot read the row. `pads_uuids`: the database's log omits the zeros at the end of UUIDs,
    and Debezium adds them at the front.
    """

    def __init__(self, details: Mapping[str, ColumnDetails], *, snapshot: bool, pads_uuids: bool) -> None:
        self._details = details
        self._snapshot, self._pads_uuids = snapshot, pads_uuids

    def __call__(self, name: str, kind: Kind, value: Any) -> Scalar:
        """Return the canonical form of a metadata column's value. Raises InexactValue."""
        form = _form(kind, value)
        if self._pads_uuids and kind is Kind.UUID and str(form).startswith("00"):
            raise InexactValue(name)
        self.require_sure(name, form)
        return form

    def require_sure(self, name: str, value: Scalar) -> None:
        """Raise InexactValue if a column's value, whatever the column is used for, may stand for another one.

        A value of an enumeration that is not a label, or that has a backslash, was escaped or is a newer label.
        """
        details = self._details.get(name)
        if details is None:
            return
        label = value if details.labels is not None else None
        unknown = label is not None and (label not in (details.labels or ()) or "\\" in str(label))
        if unknown or value in details.inexact or (self._snapshot and details.inexact_snapshot):
            raise InexactValue(name)


def _form(kind: Kind, value: Any) -> Scalar:
    try:
        if isinstance(value, int) and kind in _OF_NUMBERS:
            form: Scalar = _OF_NUMBERS[kind](value)
        elif kind is Kind.DECIMAL:
            form = canonical(kind, _NOT_FINITE.get(str(value), value) if value is not None else None)
        else:
            form = canonical(kind, value)
    except (ValueError, OverflowError) as error:
        raise InexactValue(kind.value) from error
    if kind in _WITH_YEAR and isinstance(form, str) and not _FIRST_SURE_YEAR <= _year(form) <= _LAST_SURE_YEAR:
        raise InexactValue(kind.value)
    return form


def _year(form: str) -> int:
    year = form.partition("-")[0]
    return int(year) if year.isdigit() and not form.endswith("BC") else 0
