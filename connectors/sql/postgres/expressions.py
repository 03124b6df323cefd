"""SQL expressions that several statements need word for word: column reads, key ranges and the full-text vector.

No statement is executed here.
"""

from __future__ import annotations

from connectors.errors import Refused
from connectors.sql.layout import BAD_BOUND, Column, Layout
from connectors.sql.postgres.pool import quoted
from schemas.keys import ID_CHARACTERS
from schemas.settings import Collection
from schemas.values import Kind

# Keys are compared in a wide type, so that a number outside the column's range matches no row instead of failing.
KEY_TYPES = {Kind.INTEGER: "bigint", Kind.TEXT: "text", Kind.UUID: "uuid"}
# A tsvector holds at most 2^20 bytes. A character of text takes at most about eight bytes in it. In this worst case,
# hyphens join words of characters outside the basic plane: they are kept whole and in parts, with their positions.
SEARCHED_CHARS = 130_000
_AS_THEY_ARE = frozenset({"text", "character varying", "bpchar", "bytea"})


def selected(column: Column, alias: str = "t") -> str:
    """Return the expression that reads a column as text for `schemas.values`. Bytes and plain text are not cast."""
    name = f"{alias}.{quoted(column.name)}"
    return name if column.sql_type in _AS_THEY_ARE else f"{name}::text AS {quoted(column.name)}"


def read_list(layout: Layout, *, binary: bool = False) -> str:
    """Return the select list of all columns that make up a document, and of its version.

    With `binary`, a pgvector embedding is read in the form of its type's send function, at a tenth of the cost of text.
    """
    embedding = layout.description.embedding if binary else None
    columns = [
        _sent(layout.columns[name]) if name == embedding else selected(layout.columns[name])
        for name in layout.read_columns
    ]
    return f"{', '.join(columns)}, t.crossfade_version::bigint AS crossfade_version"


def _sent(column: Column) -> str:
    schema, _, name = column.sql_type.rpartition(".")
    if name != "vector":
        return selected(column)
    function = f"{schema}.vector_send" if schema else "vector_send"
    return f"{function}(t.{quoted(column.name)}) AS {quoted(column.name)}"


def usable_key(layout: Layout) -> str | None:
    """Return the condition that the key of a row makes an id, None if every row's key does."""
    text = [f"t.{quoted(column.name)}" for column in layout.key_columns if column.kind is Kind.TEXT]
    limited = layout.longest_id is not None and layout.longest_id <= ID_CHARACTERS
    if len(layout.key_columns) == 1:
        if not text:
            return None
        return f"{text[0]} <> ''" + ("" if limited else f" AND char_length({text[0]}) <= {ID_CHARACTERS}")
    if limited:
        return None
    others = [f"t.{quoted(column.name)}" for column in layout.key_columns if column.kind is not Kind.TEXT]
    rest = " + ".join([*(f"char_length({name}::text)" for name in others), str(len(layout.key_columns) - 1)])
    encoded = [f"3 * octet_length(convert_to({name}, 'UTF8'))" for name in text]
    kept = [f"2 * char_length(regexp_replace({name}, '[^A-Za-z0-9_.~-]', '', 'g'))" for name in text]
    longest = f"{' + '.join(encoded)} + {rest}"
    # The exact length of a percent-encoded id takes longer to compute; few rows need it.
    return f"({longest} <= {ID_CHARACTERS} OR {longest} - {' - '.join(kept)} <= {ID_CHARACTERS})"


def range_condition(layout: Layout, after: str | None, upto: str | None, values: list[str]) -> str:
    """Return the WHERE clause of the key range (`after`, `upto`]. The keys of the bounds are appended to `values`.

    Rows whose key makes no id are in no range. Raises Refused if a bound is not the id of a row that this table could
    have.
    """
    key = ", ".join(f"t.{quoted(name)}" for name in layout.collection.key)
    usable = usable_key(layout)
    parts = [] if usable is None else [usable]
    for sign, bound in ((">", after), ("<=", upto)):
        if bound is None:
            continue
        found = layout.key_values(bound)
        if found is None:
            raise Refused(BAD_BOUND)
        places = ", ".join(f"${len(values) + n}::text::{KEY_TYPES[kind]}" for n, kind in enumerate(layout.key_kinds, 1))
        parts.append(f"({key}) {sign} ({places})")
        values += found
    return f" WHERE {' AND '.join(parts)}" if parts else ""


def literal(text: str) -> str:
    """Return a string literal."""
    return "'" + text.replace("'", "''") + "'"


def document_vector(collection: Collection, alias: str | None = None) -> str:
    """Return the expression of a row's tsvector. An index is used only if it was built on this same expression.

    The vector covers only the beginning of a long text. With an index over all of it, the table would refuse rows whose
    vector is too large.
    """
    prefix = f"{alias}." if alias else ""
    parts = " || ' ' || ".join(f"coalesce({prefix}{quoted(name)}::text, '')" for name in collection.text)
    return f"to_tsvector({literal(collection.text_search_config)}::regconfig, left({parts}, {SEARCHED_CHARS}))"
