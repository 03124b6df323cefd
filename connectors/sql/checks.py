"""The part of `config check` that is the same for both databases: checks of columns by their use.

It takes values and returns findings. It does not query a database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from connectors.sql.layout import IDENTITY_TABLE, KEY_KINDS, LEDGER_TABLE, META_TABLE, VERSION_COLUMN, Column
from connectors.sql.tasks import TASKS_TABLE
from connectors.sql.values import parse_embedding
from domain.legacy import Diagnostic, Remedy, Setting
from schemas.settings import Collection
from schemas.values import Kind

OWN_TABLES = (LEDGER_TABLE, META_TABLE, IDENTITY_TABLE, TASKS_TABLE)
"""Crossfade's own tables, in the schema of the collection's table."""

# Enough to detect a wrong format or model. More would make the check slow on wide rows.
VECTORS_LOOKED_AT = 20

EMBEDDING_TYPES: dict[str, tuple[str, ...]] = {
    "pgvector": ("vector",),
    "json": ("json", "jsonb", "text", "character varying", "varchar", "longtext", "mediumtext"),
    "float32": ("bytea", "blob", "mediumblob", "longblob", "tinyblob", "varbinary", "binary"),
}

UNSORTED = (
    "no index has the key's columns in their order: each page that a backfill or verify reads sorts the whole table"
)
OTHER_KEY = Setting("crossfade.toml: name a key of integers, text or UUIDs; a unique column of that kind can be added")


def error(subject: str, message: str, remedy: Remedy | None = None) -> Diagnostic:
    """A mistake that keeps the collection from working."""
    return Diagnostic("error", subject, message, remedy)


def warning(subject: str, message: str, remedy: Remedy | None = None) -> Diagnostic:
    """Something that works, but not as well as it should."""
    return Diagnostic("warning", subject, message, remedy)


def near(name: str, known: Iterable[str]) -> str:
    """Return a hint at names similar to the given one, empty if there is none."""
    lowered = {one.lower(): one for one in known}
    close = get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)
    return f"; did you mean {', '.join(lowered[one] for one in close)}?" if close else ""


def column_findings(
    subject: str,
    collection: Collection,
    columns: dict[str, Column],
    rename: Callable[[Column], str],
    key_remedy: Callable[[Column], Remedy],
) -> list[Diagnostic]:
    """Return what is wrong with the columns that the configuration names.

    `rename` returns the name of a column's type. `key_remedy` returns the remedy that lets a column be a key.
    """
    used: list[tuple[str, str, Sequence[Kind] | None]] = [
        *((name, "key", KEY_KINDS) for name in collection.key),
        *((name, "text", (Kind.TEXT,)) for name in collection.text),
        *((name, "metadata", tuple(Kind)) for name in collection.metadata),
    ]
    if collection.tenant:
        used.append((collection.tenant, "tenant", (Kind.TEXT, Kind.INTEGER)))
    if collection.embedding:
        used.append((collection.embedding.column, "embedding", None))
    findings: list[Diagnostic] = []
    for name, use, kinds in used:
        column = columns.get(name)
        if column is None:
            others = [one for one in columns if one != VERSION_COLUMN]
            remedy = Setting(f"crossfade.toml: name a column of the table: {', '.join(others)}")
            findings.append(error(subject, f"{use} column {name} is not in the table{near(name, others)}", remedy))
        elif kinds is None:
            findings += _embedding(subject, collection, column, rename)
        elif use == "key" and column.key_refusal is not None:
            text = f"key column {name} is of type {rename(column)}, which cannot be a key: {column.key_refusal}"
            findings.append(error(subject, text, key_remedy(column)))
        elif column.kind not in kinds:
            what = "no text" if use == "text" else f"not supported as {use}"
            remedy = Setting(f"crossfade.toml: leave {name} out of {use}, or change the column's type")
            findings.append(error(subject, f"{use} column {name} is of type {rename(column)}: {what}", remedy))
    return findings


def _embedding(
    subject: str, collection: Collection, column: Column, rename: Callable[[Column], str]
) -> list[Diagnostic]:
    embedding = collection.embedding
    if embedding is None:
        return []
    base = rename(column).rpartition(".")[2].strip('"')
    if base in EMBEDDING_TYPES[embedding.format]:
        return []
    wanted = " or ".join(EMBEDDING_TYPES[embedding.format][:3])
    text = f"embedding column {column.name} is of type {rename(column)}, format {embedding.format} needs {wanted}"
    fitting = next((form for form, types in EMBEDDING_TYPES.items() if base in types), None)
    remedy = (
        Setting(f'crossfade.toml: format = "{fitting}"') if fitting else Setting("crossfade.toml: name another column")
    )
    return [error(subject, text, remedy)]


def vector_findings(
    subject: str, collection: Collection, dimension: int, values: Sequence[Any], declared: int | None = None
) -> list[Diagnostic]:
    """Return what is wrong with stored embeddings for a model of that dimension.

    `values` is a sample of the embeddings. `declared` is the length that the column's type requires.
    """
    embedding = collection.embedding
    if embedding is None:
        return []
    column = embedding.column
    vectors = [parse_embedding(embedding.format, value, column) for value in values]
    findings: list[Diagnostic] = []
    lengths = {len(vector) // 4 for vector in vectors if vector is not None} | ({declared} if declared else set())
    others = sorted(lengths - {dimension})
    if others:
        found = " and ".join(str(length) for length in others)
        text = f"embedding column {column} holds vectors of {found} numbers, {collection.model} makes {dimension}"
        remedy = Setting(f"crossfade.toml: set {subject}'s model to the one that made them, or leave its embedding out")
        findings.append(error(subject, text, remedy))
    unusable = sum(vector is None for vector in vectors)
    if unusable:
        text = f"{unusable} of {len(values)} embeddings looked at in column {column} are not {embedding.format}"
        remedy = Setting("they are computed again; set them to NULL, or fix the format in crossfade.toml")
        findings.append(warning(subject, text, remedy))
    return findings
