"""Filters of questions: equality with metadata, with each value in the canonical form of its column."""

from __future__ import annotations

from collections.abc import Mapping

from domain.legacy import TableDescription
from schemas.content import Scalar
from schemas.values import canonical


def canonical_filter(description: TableDescription, wanted: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return a filter in the form that every store compares.

    Raises ValueError for a column that is not metadata, a value of another kind, and a value that is no label of its
    enumeration.
    """
    return {name: _canonical(description, name, value) for name, value in wanted.items()}


def _canonical(description: TableDescription, name: str, value: Scalar) -> Scalar:
    kind = description.metadata.get(name)
    if kind is None:
        known = ", ".join(description.metadata) or "none"
        raise ValueError(f"filter: {name} is not a metadata column of the collection; there are: {known}")
    try:
        form = canonical(kind, value)
    except ValueError as error:
        raise ValueError(f"filter: {name}: {error}") from None
    details = description.details.get(name)
    labels = details.labels if details is not None else None
    if labels is not None and form is not None and form not in labels:
        raise ValueError(f"filter: {name}: no such label; there are: {', '.join(filter(None, labels))}")
    return form


def is_number(value: Scalar) -> bool:
    """Return whether a filter value is compared as a number; a boolean is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def matches(metadata: object, wanted: Mapping[str, Scalar]) -> bool:
    """Return whether metadata equals a filter: null means null or absent, 1 equals 1.0, a boolean equals no number."""
    known = metadata if isinstance(metadata, Mapping) else {}
    return all(_equal(known.get(name), value) for name, value in wanted.items())


def _equal(stored: Scalar, wanted: Scalar) -> bool:
    if is_number(stored) and is_number(wanted):
        return stored == wanted
    return type(stored) is type(wanted) and stored == wanted
