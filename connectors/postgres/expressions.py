"""SQL expressions that more than one statement needs word for word: how a column is read, what full text is made of."""

from __future__ import annotations

from connectors.postgres.pool import quoted
from connectors.sql_layout import Column, Layout
from schemas.settings import Collection

_AS_THEY_ARE = frozenset({"text", "character varying", "bpchar", "bytea"})


def selected(column: Column, alias: str = "t") -> str:
    """Return the expression that reads a column as text for `domain.values`; bytes and plain text as they are."""
    name = f"{alias}.{quoted(column.name)}"
    return name if column.sql_type in _AS_THEY_ARE else f"{name}::text AS {quoted(column.name)}"


def read_list(layout: Layout) -> str:
    """Return the select list of everything that makes a document, and its version."""
    columns = ", ".join(selected(layout.columns[name]) for name in layout.read_columns)
    return f"{columns}, t.crossfade_version::bigint AS crossfade_version"


def literal(text: str) -> str:
    """Return a string literal."""
    return "'" + text.replace("'", "''") + "'"


def document_vector(collection: Collection, alias: str | None = None) -> str:
    """Return the tsvector of a row; an index is used only where it was made of this same expression."""
    prefix = f"{alias}." if alias else ""
    parts = " || ' ' || ".join(f"coalesce({prefix}{quoted(name)}::text, '')" for name in collection.text)
    return f"to_tsvector({literal(collection.text_search_config)}::regconfig, {parts})"
