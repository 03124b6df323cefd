"""What the searches of both databases share: typed filters, and rows as hits. No SQL of one database here."""

from __future__ import annotations

from connectors.errors import Refused
from connectors.sql_layout import VERSION_COLUMN, Layout
from connectors.sql_values import Row, row_content, row_key, sql_text
from domain.values import Kind
from schemas.content import Scalar
from schemas.queries import Hit

HIT_CHARACTERS = 2000
MAX_ID_CHARACTERS = 512


def filter_text(layout: Layout, name: str, value: Scalar) -> str | None:
    """Return a filter's value as text of its column's kind. Raises Refused for another column or another kind."""
    kind = layout.description.metadata.get(name)
    if kind is None:
        known = ", ".join(layout.description.metadata) or "none"
        raise Refused(f"filter: {name} is not metadata of the collection; there are {known}")
    try:
        return sql_text(kind, value)
    except ValueError as error:
        raise Refused(f"filter: {name}: {error}") from None


def tenant_exists(layout: Layout, tenant: str) -> bool:
    """Say whether a tenant can have documents here at all: a table without the column holds the default's."""
    column = layout.collection.tenant
    if column is None or tenant == "default":
        return tenant == "default"
    kind = layout.columns[column].kind
    try:
        return kind is not None and (kind is Kind.TEXT or sql_text(kind, tenant) == tenant)
    except ValueError:
        return False


def tenant_is_text(layout: Layout) -> bool:
    """Say whether the tenant column can hold `default` itself; in another it is NULL."""
    column = layout.collection.tenant
    return column is not None and layout.columns[column].kind is Kind.TEXT


def hit_of(layout: Layout, values: Row, score: float) -> Hit | None:
    """Return a found row as a hit, None for a row whose key is too long to be a document of crossfade."""
    content = row_content(layout.description, None, values)
    document_id = row_key(layout.description, values)
    if not 0 < len(document_id) <= MAX_ID_CHARACTERS:
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
