"""A collection's table as its database describes it, and which values a change sets in it.

No statement is built here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

from connectors.errors import Misconfigured
from connectors.sql.values import embedding_value, sql_text
from domain.legacy import ColumnDetails, LegacyChange, TableDescription
from schemas.content import Content
from schemas.keys import is_id, split_key
from schemas.settings import Collection
from schemas.values import Kind

VERSION_COLUMN = "crossfade_version"
LEDGER_TABLE = "crossfade_ledger"
META_TABLE = "crossfade_meta"
# Identities of external objects: servers, tables, topics, Qdrant collections.
IDENTITY_TABLE = "crossfade_identities"
BAD_BOUND = "a range cannot begin or end at something that is not a key of the table: --restart divides the table again"
KEY_KINDS = (Kind.INTEGER, Kind.TEXT, Kind.UUID)

# Counting a table of hundreds of millions of rows takes minutes. One statement counts several ranges.
COUNT_TIMEOUT_S = 900.0
COUNTED_TOGETHER = 50
HIGHEST_SIGNED, HIGHEST_UNSIGNED = 2**63 - 1, 2**64 - 1
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,19}", re.ASCII)
# The most characters in a part of an id: for one percent-encoded character of text, for an integer, for a UUID.
_ENCODED, _OF_INTEGER, _OF_UUID = 12, 20, 36


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table.

    `sql_type` is the type that values are cast to. `kind` is None if crossfade has no canonical form for the type.
    `binary` marks text that is compared byte by byte.

    For a column of the key, `not_key` is the reason why it cannot be part of a key, whatever its kind is. `highest` is
    the largest integer. `length` is the most characters (None: there is no limit). `collation` is the character set and
    the collation, if the database does not take them from the column by itself.

    `compared` is the collation, by the database's own name for it.
    """

    name: str
    sql_type: str
    kind: Kind | None
    binary: bool = True
    not_key: str | None = None
    highest: int = HIGHEST_SIGNED
    length: int | None = None
    collation: tuple[str, str] | None = None
    details: ColumnDetails | None = None
    compared: str | None = None

    @property
    def key_refusal(self) -> str | None:
        """Why the column cannot be part of the key, None if it can."""
        return self.not_key or (None if self.kind in KEY_KINDS else "a key is made of integers, text and UUIDs")


@dataclass(frozen=True)
class Layout:
    """The table of one collection: its location, and its columns by name."""

    name: str
    collection: Collection
    schema: str
    table: str
    columns: Mapping[str, Column]

    @cached_property
    def description(self) -> TableDescription:
        """The table's columns by use. Raises Misconfigured for a column that is missing or of an unsupported type."""
        collection = self.collection
        self._require([VERSION_COLUMN, *collection.key, *collection.text, *collection.metadata])
        embedding = collection.embedding.column if collection.embedding else None
        self._require([name for name in (collection.tenant, embedding) if name])
        kinds = {name: self._kind(name) for name in collection.metadata}
        for name in collection.key:
            refusal = self.columns[name].key_refusal
            if refusal is not None:
                what = f"column {name} of type {self.columns[name].sql_type}"
                raise Misconfigured(f"{self.name}: {what} cannot be a key: {refusal}")
        if collection.tenant is not None and self._kind(collection.tenant) not in KEY_KINDS:
            what = f"column {collection.tenant} of type {self.columns[collection.tenant].sql_type}"
            raise Misconfigured(f"{self.name}: {what} cannot be a tenant")
        used = collection.content_columns
        details = {name: given for name in used if (given := self.columns[name].details) is not None}
        place = f"{self.schema}.{self.table}"
        return TableDescription(collection.key, collection.text, kinds, collection.tenant, embedding, details, place)

    def _require(self, names: list[str]) -> None:
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise Misconfigured(f"{self.name}: table {self.schema}.{self.table} has no column {', '.join(missing)}")

    def _kind(self, name: str) -> Kind:
        column = self.columns[name]
        if column.kind is None:
            raise Misconfigured(f"{self.name}: column {name} has the unsupported type {column.sql_type}")
        return column.kind

    @cached_property
    def key_kinds(self) -> tuple[Kind, ...]:
        """The kinds of the key columns, in key order."""
        return tuple(self._kind(name) for name in self.collection.key)

    @cached_property
    def key_columns(self) -> tuple[Column, ...]:
        """The key columns, in key order."""
        return tuple(self.columns[name] for name in self.collection.key)

    @cached_property
    def longest_id(self) -> int | None:
        """The most characters that the id of a row can have, None if there is no limit."""
        single, longest = len(self.key_columns) == 1, len(self.key_columns) - 1
        for column in self.key_columns:
            if column.kind is not Kind.TEXT:
                longest += _OF_INTEGER if column.kind is Kind.INTEGER else _OF_UUID
            elif column.length is None:
                return None
            else:
                longest += column.length * (1 if single else _ENCODED)
        return longest

    @cached_property
    def read_columns(self) -> tuple[str, ...]:
        """The columns that make up a document, in the order key, text, metadata, tenant, embedding."""
        description = self.description
        optional = [name for name in (description.tenant, description.embedding) if name]
        return (*description.key, *description.text, *description.metadata, *optional)

    @cached_property
    def write_columns(self) -> tuple[str, ...]:
        """The columns that an upsert sets: the columns of a document, and the version."""
        return (*self.read_columns, VERSION_COLUMN)

    def key_values(self, document_id: str) -> tuple[str, ...] | None:
        """Return the key column values of a document id, None if no row could have that id.

        Only the canonical spelling counts: `007` is not the id of row 7. Otherwise one row would hold two documents.
        """
        return canonical_key(document_id, self.key_kinds, [column.highest for column in self.key_columns])

    def refusal(self, change: LegacyChange) -> str | None:
        """Return why a change can never be a row of this table, None if only the database can decide."""
        if change.written is None or change.content is None:
            return None
        if self.key_values(change.id) is None:
            return f"the id is not a key of the table ({', '.join(self.collection.key)})"
        return content_refusal(self.description, change.content, self._tenant_is_text)

    @cached_property
    def _tenant_is_text(self) -> bool:
        return self.collection.tenant is None or self._kind(self.collection.tenant) is Kind.TEXT

    def written_columns(self, change: LegacyChange) -> tuple[str, ...]:
        """Return the columns of `write_columns` that an upsert sets: all except the omitted ones.

        An omitted embedding is left out only if all text is omitted too: a new text sets the embedding to NULL.
        """
        if not change.omitted:
            return self.write_columns
        kept = set(change.omitted)
        if self.description.embedding is not None and not kept.issuperset(self.description.text):
            kept.discard(self.description.embedding)
        return tuple(name for name in self.write_columns if name not in kept)

    def row_values(self, change: LegacyChange, columns: Sequence[str]) -> list[str | bytes | int | None]:
        """Return the values of `columns` for an upsert that `refusal` found nothing wrong with."""
        values = self._row_values(change)
        if len(columns) == len(values):
            return values
        return [value for name, value in zip(self.write_columns, values, strict=True) if name in columns]

    def _row_values(self, change: LegacyChange) -> list[str | bytes | int | None]:
        content, key = change.content, self.key_values(change.id)
        if content is None or key is None:
            raise ValueError("not an upsert of this table")
        description = self.description
        values: list[str | bytes | int | None] = [*key]
        values += [content.text.get(name) for name in description.text]
        values += [sql_text(kind, content.metadata.get(name)) for name, kind in description.metadata.items()]
        if description.tenant is not None:
            plain = self._tenant_is_text or content.tenant != "default"
            values.append(content.tenant if plain else None)
        if self.collection.embedding is not None:
            given = content.embedding
            values.append(None if given is None else embedding_value(self.collection.embedding.format, given))
        return [*values, change.written]


def _typed(column: Column) -> str:
    return column.sql_type if column.compared is None else f"{column.sql_type} {column.compared}"


def altered_columns(layout: Layout, now: Mapping[str, Column]) -> str | None:
    """Return how the columns that crossfade uses differ from those a table was opened with, None if they do not.

    A missing table is not reported here.
    """
    changes = []
    for name in layout.write_columns if now else ():
        was, found = layout.columns[name], now.get(name)
        if found is None:
            changes.append(f"column {name} is gone")
        elif found != was:
            changes.append(f"column {name} is another one ({_typed(was)}, now {_typed(found)})")
    return "; ".join(changes) or None


def content_refusal(description: TableDescription, content: Content, tenant_is_text: bool = True) -> str | None:
    """Return why a content does not fit a table of that description. The reason contains no value of the content."""
    if description.tenant is None and content.tenant != "default":
        return "the table has no tenant column"
    if not tenant_is_text and content.tenant != "default" and not _INTEGER.fullmatch(content.tenant):
        return f"column {description.tenant}: the tenant is not of its type"
    unknown = sorted({*content.text} - {*description.text}) + sorted({*content.metadata} - {*description.metadata})
    if unknown:
        return f"the collection has no column {', '.join(unknown)}"
    for name, kind in description.metadata.items():
        try:
            sql_text(kind, content.metadata.get(name))
        except ValueError as error:
            return f"column {name}: {error}"
    return None


def canonical_key(document_id: str, kinds: Sequence[Kind], highest: Sequence[int]) -> tuple[str, ...] | None:
    """Return the values of a key from the id of its row, None if the id is not in its canonical spelling."""
    if not is_id(document_id):
        return None
    try:
        parts = split_key(document_id, len(kinds))
    except ValueError:
        return None
    sound = all(_is_canonical(*one) for one in zip(kinds, parts, highest, strict=True))
    return parts if sound else None


def _is_canonical(kind: Kind, part: str, highest: int) -> bool:
    if kind is Kind.INTEGER:
        return bool(_INTEGER.fullmatch(part)) and -HIGHEST_SIGNED - 1 <= int(part) <= highest
    if kind is Kind.UUID:
        try:
            return str(UUID(part)) == part
        except ValueError:
            return False
    return True
