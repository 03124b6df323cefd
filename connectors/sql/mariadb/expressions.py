"""SQL expressions that several statements need: column reads, parameter values and key conditions.

No statement is executed here.
"""

from __future__ import annotations

from collections.abc import Sequence

from connectors.errors import Refused
from connectors.sql.layout import BAD_BOUND, Column, Layout
from connectors.sql.mariadb.pool import quoted
from schemas.keys import ID_CHARACTERS
from schemas.values import Kind

Given = str | bytes | int | None


def read_list(layout: Layout) -> str:
    """Return the select list of all columns that make up a document, and of its version."""
    return ", ".join([*(_read(layout.columns[name]) for name in layout.read_columns), "t.crossfade_version"])


def key_list(layout: Layout) -> str:
    """Return the select list of the key."""
    return ", ".join(_read(column) for column in layout.key_columns)


def key_order(layout: Layout) -> str:
    """Return the columns of the key without conversion, because rows are ordered by the stored values."""
    return ", ".join(f"t.{quoted(name)}" for name in layout.collection.key)


def _read(column: Column) -> str:
    """Return the expression that reads a column.

    An integer is read without display formatting: the zeros of ZEROFILL, the four digits of a YEAR. A 32-bit float is
    read as a double: as text it would lose digits.
    """
    name = f"t.{quoted(column.name)}"
    shown = "zerofill" in column.sql_type or column.sql_type.startswith("year")
    if column.kind is Kind.INTEGER and shown:
        return f"CAST({name} AS UNSIGNED) AS {quoted(column.name)}"
    return f"CAST({name} AS DOUBLE) AS {quoted(column.name)}" if column.kind is Kind.FLOAT32 else name


def usable_key(layout: Layout) -> str | None:
    """Return the condition that the key of a row makes an id, None if every row's key does."""
    text = [f"t.{quoted(column.name)}" for column in layout.key_columns if column.kind is Kind.TEXT]
    if not text:
        return None
    stored = [f"CAST(CONVERT({name} USING utf8mb4) AS BINARY)" for name in text]
    parts = [f"INSTR({one}, X'00') = 0" for one in stored]
    limited = layout.longest_id is not None and layout.longest_id <= ID_CHARACTERS
    if len(layout.key_columns) == 1:
        parts.append(f"CHAR_LENGTH({text[0]}) BETWEEN 1 AND {ID_CHARACTERS}")
    elif not limited:
        others = [f"CHAR_LENGTH({_bare(column)})" for column in layout.key_columns if column.kind is not Kind.TEXT]
        encoded = [f"3 * LENGTH({one})" for one in stored]
        kept = [f"2 * LENGTH(REGEXP_REPLACE({one}, '[^A-Za-z0-9_.~-]', ''))" for one in stored]
        longest = " + ".join([*encoded, *others, str(len(layout.key_columns) - 1)])
        # The exact length of a percent-encoded id takes longer to compute; few rows need it.
        parts.append(f"({longest} <= {ID_CHARACTERS} OR {longest} - {' - '.join(kept)} <= {ID_CHARACTERS})")
    return " AND ".join(parts)


def _bare(column: Column) -> str:
    return _read(column).partition(" AS `")[0]


def given(kind: Kind | None, value: Given) -> Given:
    """Return a value of `Layout.row_values` in MariaDB's form: no `true`, no time zone, integers unquoted.

    Bytes are passed as hex to UNHEX, because the driver fails on bytes.
    """
    if isinstance(value, bytes):
        return value.hex()
    if not isinstance(value, str):
        return value
    if kind in {Kind.BOOLEAN, Kind.FLAG} and value in {"true", "false"}:
        return int(value == "true")
    if kind is Kind.TIMESTAMPTZ:
        return value.removesuffix("Z")
    return int(value) if kind in {Kind.INTEGER, Kind.FLAG} else value


def kinds_written(layout: Layout) -> list[Kind | None]:
    """Return the kind of each column that an upsert sets, None for the embedding and the version."""
    plain = len(layout.write_columns) - 1 - (layout.collection.embedding is not None)
    return [layout.columns[name].kind if n < plain else None for n, name in enumerate(layout.write_columns)]


def key_condition(layout: Layout, keys: Sequence[tuple[str, ...]]) -> tuple[str, list[Given]]:
    """Return the condition that a row has one of the keys, and its values.

    A condition on several columns is spelled out, because only then does MariaDB read a range of the index.
    """
    kinds = layout.key_kinds
    names = [f"t.{quoted(name)}" for name in layout.collection.key]
    values = [given(kind, part) for key in keys for kind, part in zip(kinds, key, strict=True)]
    places = [compared(column) for column in layout.key_columns]
    if len(names) == 1:
        return f"{names[0]} IN ({', '.join(places * len(keys))})", values
    one = "(" + " AND ".join(f"{name} = {place}" for name, place in zip(names, places, strict=True)) + ")"
    return "(" + " OR ".join([one] * len(keys)) + ")", values


def compared(column: Column) -> str:
    """Return the placeholder of a value that is compared with a column, in the column's character set and collation.

    MariaDB refuses to compare a column with text that its character set cannot represent.
    """
    if column.collation is None:
        return "%s"
    charset, collation = column.collation
    return f"CONVERT(%s USING {charset}) COLLATE {collation}"


def range_condition(layout: Layout, after: str | None, upto: str | None, values: list[Given]) -> str:
    """Return the WHERE clause of the key range (`after`, `upto`]. The keys of the bounds are appended to `values`.

    Rows whose key makes no id are in no range. Raises Refused if a bound is not the id of a row that this table could
    have.
    """
    usable = usable_key(layout)
    parts = [] if usable is None else [usable]
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
    """Return the condition that a row comes before a key in the key's own order, or has that key, and its values."""
    return _beyond(layout, key, "<", last="<=")


def _beyond(layout: Layout, key: tuple[str, ...], sign: str, last: str) -> tuple[str, list[Given]]:
    names = [f"t.{quoted(name)}" for name in layout.collection.key]
    places = [compared(column) for column in layout.key_columns]
    parts = [given(kind, part) for kind, part in zip(layout.key_kinds, key, strict=True)]
    steps, values = [], [parts[0]]
    for number, name in enumerate(names):
        same = [f"{names[n]} = {places[n]}" for n in range(number)]
        operator = last if number == len(names) - 1 else sign
        steps.append("(" + " AND ".join([*same, f"{name} {operator} {places[number]}"]) + ")")
        values += parts[: number + 1]
    return f"{names[0]} {sign}= {places[0]} AND ({' OR '.join(steps)})", values
