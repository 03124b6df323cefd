"""The part of `config check` that is the same for both databases: columns by their use. Values in, findings out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

from connectors.sql_layout import KEY_KINDS, VERSION_COLUMN, Column
from domain.legacy import Finding
from domain.values import Kind
from schemas.settings import Collection

EMBEDDING_TYPES: dict[str, tuple[str, ...]] = {
    "pgvector": ("vector",),
    "json": ("json", "jsonb", "text", "character varying", "varchar", "longtext", "mediumtext"),
    "float32": ("bytea", "blob", "mediumblob", "longblob", "tinyblob", "varbinary", "binary"),
}

NOT_PRIMARY = (
    "the key is not the table's primary key: an update that changes it is captured as one event of two documents, "
    "goes to the dead letters, and is repaired by verify --repair"
)


def error(subject: str, message: str, mend: str | None = None) -> Finding:
    """A mistake that keeps the collection from working."""
    return Finding("error", subject, message, mend)


def warning(subject: str, message: str, mend: str | None = None) -> Finding:
    """Something that works, but not as well as it should."""
    return Finding("warning", subject, message, mend)


def near(name: str, known: Iterable[str]) -> str:
    """Return a hint at names like the given one, empty where there is none."""
    lowered = {one.lower(): one for one in known}
    close = get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)
    return f"; did you mean {', '.join(lowered[one] for one in close)}?" if close else ""


def column_findings(
    subject: str, collection: Collection, columns: dict[str, Column], rename: Callable[[Column], str]
) -> list[Finding]:
    """Return what is wrong with the columns that the configuration names. `rename` shows a column's type."""
    used: list[tuple[str, str, Sequence[Kind] | None]] = [
        *((name, "key", KEY_KINDS) for name in collection.key),
        *((name, "text", (Kind.TEXT,)) for name in collection.text),
        *((name, "metadata", tuple(Kind)) for name in collection.metadata),
    ]
    if collection.tenant:
        used.append((collection.tenant, "tenant", (Kind.TEXT, Kind.INTEGER)))
    if collection.embedding:
        used.append((collection.embedding.column, "embedding", None))
    findings: list[Finding] = []
    for name, use, kinds in used:
        column = columns.get(name)
        if column is None:
            others = [one for one in columns if one != VERSION_COLUMN]
            findings.append(error(subject, f"{use} column {name} is not in the table{near(name, others)}"))
        elif kinds is None:
            findings += _embedding(subject, collection, column, rename)
        elif column.kind not in kinds:
            what = "no text" if use == "text" else f"not supported as {use}"
            findings.append(error(subject, f"{use} column {name} is of type {rename(column)}: {what}"))
    return findings


def _embedding(subject: str, collection: Collection, column: Column, rename: Callable[[Column], str]) -> list[Finding]:
    embedding = collection.embedding
    if embedding is None:
        return []
    base = rename(column).rpartition(".")[2].strip('"')
    if base in EMBEDDING_TYPES[embedding.format]:
        return []
    wanted = " or ".join(EMBEDDING_TYPES[embedding.format][:3])
    text = f"embedding column {column.name} is of type {rename(column)}, format {embedding.format} needs {wanted}"
    return [error(subject, text)]
