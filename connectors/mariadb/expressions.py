"""SQL that more than one statement needs: how a column is read, how a value is given, how keys are looked for."""

from __future__ import annotations

from collections.abc import Sequence

from connectors.errors import Refused
from connectors.mariadb.pool import places, quoted
from connectors.sql_layout import BAD_BOUND, Layout
from domain.values import Kind

Given = str | bytes | int | None


def read_list(layout: Layout) -> str:
    """Return the select list of everything that makes a document, and its version.

    A float of 32 bits is read as a double: as text it would lose digits.
    """
    parts = []
    for name in layout.read_columns:
        single = layout.columns[name].kind is Kind.FLOAT32
        parts.append(f"CAST(t.{quoted(name)} AS DOUBLE) AS {quoted(name)}" if single else f"t.{quoted(name)}")
    return ", ".join([*parts, "t.crossfade_version"])


def given(kind: Kind | None, value: Given) -> Given:
    """Return a value of `Layout.row_values` as MariaDB takes it: no `true`, no time zone, integers unquoted.

    Bytes are given in hex, to UNHEX, because the driver fails on bytes.
    """
    if isinstance(value, bytes):
        return value.hex()
    if not isinstance(value, str):
        return value
    if kind is Kind.BOOLEAN:
        return int(value == "true")
    if kind is Kind.TIMESTAMPTZ:
        return value.removesuffix("Z")
    return int(value) if kind is Kind.INTEGER else value


def kinds_written(layout: Layout) -> list[Kind | None]:
    """Return the kind of each of the columns that an upsert sets; None for embedding and version."""
    plain = len(layout.write_columns) - 1 - (layout.collection.embedding is not None)
    return [layout.columns[name].kind if n < plain else None for n, name in enumerate(layout.write_columns)]


def key_condition(layout: Layout, keys: Sequence[tuple[str, ...]]) -> tuple[str, list[Given]]:
    """Return the condition that a row has one of the keys, and its values.

    A condition on several columns is spelled out, because only so a range of the index is read.
    """
    kinds = layout.key_kinds
    names = [f"t.{quoted(name)}" for name in layout.collection.key]
    values = [given(kind, part) for key in keys for kind, part in zip(kinds, key, strict=True)]
    if len(names) == 1:
        return f"{names[0]} IN ({places(len(keys))})", values
    one = "(" + " AND ".join(f"{name} = %s" for name in names) + ")"
    return "(" + " OR ".join([one] * len(keys)) + ")", values


def range_condition(layout: Layout, after: str | None, upto: str | None, values: list[Given]) -> str:
    """Return the WHERE clause of the key range (`after`, `upto`], whose keys are added to the statement's values.

    Raises Refused where a bound is not the id of a row that this table could have.
    """
    parts: list[str] = []
    for condition, bound in ((after_condition, after), (_upto_condition, upto)):
        if bound is None:
            continue
        key = layout.key_values(bound)
        if key is None:
            raise Refused(BAD_BOUND)
        text, given_ = condition(layout, key)
        parts.append(text)
        values += given_
    return f" WHERE {' AND '.join(parts)}" if parts else ""


def after_condition(layout: Layout, key: tuple[str, ...]) -> tuple[str, list[Given]]:
    """Return the condition that a row comes after a key in the key's own order, and its values."""
    return _beyond(layout, key, ">", last=">")


def _upto_condition(layout: Layout, key: tuple[str, ...]) -> tuple[str, list[Given]]:
    """Return the condition that a row comes before a key in the key's own order or has that key, and its values."""
    return _beyond(layout, key, "<", last="<=")


def _beyond(layout: Layout, key: tuple[str, ...], sign: str, last: str) -> tuple[str, list[Given]]:
    names = [f"t.{quoted(name)}" for name in layout.collection.key]
    parts = [given(kind, part) for kind, part in zip(layout.key_kinds, key, strict=True)]
    steps, values = [], [parts[0]]
    for number, name in enumerate(names):
        same = [f"{before} = %s" for before in names[:number]]
        compared = last if number == len(names) - 1 else sign
        steps.append("(" + " AND ".join([*same, f"{name} {compared} %s"]) + ")")
        values += parts[: number + 1]
    return f"{names[0]} {sign}= %s AND ({' OR '.join(steps)})", values
