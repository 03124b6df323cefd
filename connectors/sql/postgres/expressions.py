"""SQL expressions that more than one statement needs word for word: how a column is read, what full text is made of."""

from __future__ import annotations

from connectors.errors import Refused
from connectors.sql.layout import BAD_BOUND, Column, Layout
from connectors.sql.postgres.pool import quoted
from domain.keys import ID_CHARACTERS
from domain.values import Kind
from schemas.settings import Collection

# Keys are compared in a wide type, so that a number beyond the column's range is no row instead of an error.
KEY_TYPES = {Kind.INTEGER: "bigint", Kind.TEXT: "text", Kind.UUID: "uuid"}
# A tsvector holds 2^20 bytes. The most that a character of text takes in one is about eight: of words of characters
# outside the basic plane that are joined by hyphens, which are kept whole and in their parts, with their positions.
SEARCHED_CHARS = 130_000
_AS_THEY_ARE = frozenset({"text", "character varying", "bpchar", "bytea"})


def selected(column: Column, alias: str = "t") -> str:
    """Return the expression that reads a column as text for `domain.values`; bytes and plain text as they are."""
    name = f"{alias}.{quoted(column.name)}"
    return name if column.sql_type in _AS_THEY_ARE else f"{name}::text AS {quoted(column.name)}"


def read_list(layout: Layout, *, binary: bool = False) -> str:
    """Return the select list of everything that makes a document, and its version.

    With `binary` a pgvector embedding is read in the form of its type's send function, which costs a tenth of text.
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
    """Return the condition that the key of a row makes an id, None where that of every row does."""
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
    # The exact length of an id that is percent-encoded takes longer to compute; few rows need it.
    return f"({longest} <= {ID_CHARACTERS} OR {longest} - {' - '.join(kept)} <= {ID_CHARACTERS})"


def range_condition(layout: Layout, after: str | None, upto: str | None, values: list[str]) -> str:
    """Return the WHERE clause of the key range (`after`, `upto`], whose keys are added to the statement's values.

    Rows whose key makes no id are in no range. Raises Refused where a bound is not the id of a row that this table
    could have.
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
    """Return the tsvector of a row; an index is used only where it was made of this same expression.

    Of a long text only the beginning: an index over all of it would have the table refuse rows of larger vectors.
    """
    prefix = f"{alias}." if alias else ""
    parts = " || ' ' || ".join(f"coalesce({prefix}{quoted(name)}::text, '')" for name in collection.text)
    return f"to_tsvector({literal(collection.text_search_config)}::regconfig, left({parts}, {SEARCHED_CHARS}))"
