"""Validation of a producer's event against its collection: the resulting content, or the error."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from domain.legacy import TableDescription
from schemas.cloudevents import InvalidEvent
from schemas.content import Content, Scalar
from schemas.documents import DocumentSubmitted
from schemas.settings import Collection
from schemas.values import canonical


def content_of(
    submitted: DocumentSubmitted,
    collection: Collection,
    table: TableDescription,
    *,
    model_names: Sequence[str],
    dimension: int,
    max_text_bytes: int,
) -> Content:
    """Return the content of a submission in canonical form, without the columns that it leaves out (`omitted_by`).

    An embedding of another model is left out, so that the vector is computed. Raises InvalidEvent for anything that the
    collection cannot hold.
    """
    if submitted.tenant != "default" and collection.tenant is None:
        raise InvalidEvent(f"tenant: the table of {submitted.collection!r} has no tenant column")
    text, metadata = _text(submitted, collection), _metadata(submitted, table)
    above = Content(tenant=submitted.tenant, text=text, metadata=metadata).above(max_text_bytes)
    if above is not None:
        raise InvalidEvent(f"{above[0]}: {above[1]} bytes, the limit is {max_text_bytes}")
    embedding = _embedding(submitted, model_names, dimension)
    left = [name for name in omitted_by(submitted, collection) if name in (*table.text, table.tenant)]
    if embedding is not None and table.embedding is None and left:
        names = ", ".join(left)
        raise InvalidEvent(f"embedding: the table has no column for it, so give text and tenant, too: {names} left out")
    return Content(
        tenant=submitted.tenant,
        text=text,
        metadata=metadata,
        embedding=embedding,
        embedding_model=model_names[-1] if embedding is not None else None,
    )


def omitted_by(submitted: DocumentSubmitted, collection: Collection) -> tuple[str, ...]:
    """Return the columns that a submission leaves out. They keep what the row holds."""
    named = {*submitted.metadata, *(collection.text if isinstance(submitted.text, str) else submitted.text)}
    given = submitted.model_fields_set
    optional = (("tenant", collection.tenant), ("embedding", _embedding_column(collection)))
    left = [name for name in (*collection.text, *collection.metadata) if name not in named]
    left += [column for name, column in optional if column is not None and name not in given]
    return tuple(dict.fromkeys(left))


def named_columns(collection: Collection, omitted: Sequence[str], *, brings_vector: bool) -> frozenset[str] | None:
    """Return the columns that an event with omitted columns names, None for an event with the whole document.

    A vector that has no column in the table counts as a column with the empty name, which no real column has.
    """
    if not omitted:
        return None
    embedding = _embedding_column(collection)
    columns = {*collection.text, *collection.metadata, collection.tenant, embedding} - {None, *omitted}
    vector = {""} if brings_vector and embedding is None else set[str]()
    return frozenset(name for name in columns if name is not None) | vector


def _embedding_column(collection: Collection) -> str | None:
    return collection.embedding.column if collection.embedding is not None else None


def _text(submitted: DocumentSubmitted, collection: Collection) -> dict[str, str | None]:
    columns = collection.text
    if isinstance(submitted.text, str):
        if len(columns) != 1:
            raise InvalidEvent(f"text: give an object of the text columns {', '.join(columns)}")
        return {columns[0]: submitted.text}
    unknown = sorted(set(submitted.text) - set(columns))
    if unknown:
        raise InvalidEvent(f"text: no text column {', '.join(unknown)}; there are {', '.join(columns)}")
    return {column: submitted.text[column] for column in columns if column in submitted.text}


def _metadata(submitted: DocumentSubmitted, table: TableDescription) -> dict[str, Scalar]:
    unknown = sorted(set(submitted.metadata) - set(table.metadata))
    if unknown:
        names = ", ".join(table.metadata) or "none"
        raise InvalidEvent(f"metadata: no metadata column {', '.join(unknown)}; there are {names}")
    found: dict[str, Scalar] = {}
    for name, kind in table.metadata.items():
        if name not in submitted.metadata:
            continue
        try:
            found[name] = canonical(kind, submitted.metadata[name])
        except ValueError as error:
            raise InvalidEvent(f"metadata.{name}: {error}") from error
    return found


def _embedding(submitted: DocumentSubmitted, model_names: Sequence[str], dimension: int) -> bytes | None:
    given = submitted.embedding
    if given is None or (submitted.embedding_model is not None and submitted.embedding_model not in model_names):
        return None
    if len(given) != dimension:
        raise InvalidEvent(f"embedding: {len(given)} numbers, the model's dimension is {dimension}")
    try:
        packed = struct.pack(f"<{dimension}f", *given)
    except (OverflowError, struct.error) as error:
        raise InvalidEvent("embedding: a number does not fit a 32-bit float") from error
    kept = struct.unpack(f"<{dimension}f", packed)  # a number too small for 32 bits became zero
    if not all(map(math.isfinite, kept)) or not any(kept):
        raise InvalidEvent("embedding: NaN, infinite, or all zero")
    return packed
