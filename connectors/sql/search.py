"""The parts that the searches of both databases share: typed filters, and rows as hits. No SQL is here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from connectors.errors import Refused
from connectors.sql.layout import VERSION_COLUMN, Layout
from connectors.sql.values import Row, row_content, row_key, sql_text
from domain.filters import canonical_filter, matches
from schemas.content import Scalar
from schemas.keys import ID_CHARACTERS
from schemas.queries import Hit
from schemas.values import Kind

SCORE = "crossfade_score"
HIT_CHARACTERS = 2000


def wanted_of(layout: Layout, wanted: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return a filter in canonical form. Raises Refused for an unknown column, a wrong kind or an unknown label."""
    try:
        return canonical_filter(layout.description, wanted)
    except ValueError as error:
        raise Refused(str(error)) from None


def free_name(layout: Layout, name: str) -> str:
    """Return a name for a computed column that differs from every column of the table, ignoring case."""
    taken = {column.lower() for column in (*layout.columns, *layout.read_columns)}
    while name in taken:
        name += "_"
    return name


def hits_of(layout: Layout, records: Iterable[Any], wanted: Mapping[str, Scalar]) -> list[Hit]:
    """Return found rows as hits. Rows that match the filter only by the database's own comparison are left out."""
    score = free_name(layout, SCORE)
    found = (hit_of(layout, record, float(record[score])) for record in records)
    return [hit for hit in found if hit is not None and matches(hit.metadata, wanted)]


def tenant_exists(layout: Layout, tenant: str) -> bool:
    """Return whether a tenant can have documents here. A table without the column holds only the default tenant's."""
    column = layout.collection.tenant
    if column is None or tenant == "default":
        return tenant == "default"
    kind = layout.columns[column].kind
    try:
        return kind is not None and (kind is Kind.TEXT or sql_text(kind, tenant) == tenant)
    except ValueError:
        return False


def tenant_is_text(layout: Layout) -> bool:
    """Return whether the tenant column can hold the text `default`. In other columns, NULL means the default tenant."""
    column = layout.collection.tenant
    return column is not None and layout.columns[column].kind is Kind.TEXT


def hit_of(layout: Layout, values: Row, score: float) -> Hit | None:
    """Return a found row as a hit, None if its key is empty or too long for a document of crossfade."""
    content = row_content(layout.description, None, values)
    document_id = row_key(layout.description, values)
    if not 0 < len(document_id) <= ID_CHARACTERS:
        return None
    version = values[VERSION_COLUMN]
    return Hit(
        document_id=document_id,
        chunk=0,
        score=score,
        text=content.full_text()[:HIT_CHARACTERS],
        metadata=content.metadata,
        version=None if version is None else int(version),
    )
