"""Converts a row's column values to a document's content, and embeddings to their formats. It knows no database.

The content is the same whether SQL or change capture read the values. A value without a canonical form is kept as the
text that the database gives. If capture is not sure of a value (`connectors.debezium.values`), the table is read, so
that hashes agree.
"""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
import orjson

from domain.legacy import LegacyChange, TableDescription
from schemas.content import Content, Scalar
from schemas.keys import join_key
from schemas.values import Kind, canonical

EmbeddingFormat = Literal["pgvector", "json", "float32"]


class Row(Protocol):
    """Column values by name: a mapping, or a driver's record."""

    def __getitem__(self, name: str, /) -> Any:
        """Return the value of a column."""
        ...

    def get(self, name: str, /) -> Any:
        """Return the value of a column, None if it was not read."""
        ...


_log = logging.getLogger(__name__)


def row_key(description: TableDescription, values: Row) -> str:
    """Return the document id of a row from its key columns, given as text, integers or UUIDs."""
    return join_key([str(values[name]) for name in description.key])


def row_tenant(description: TableDescription, values: Row) -> str:
    """Return the tenant of a row. It is `default` for NULL, for the empty text, and for a table without the column."""
    value = None if description.tenant is None else values.get(description.tenant)
    return "default" if value is None or value == "" else str(value)


def row_content(
    description: TableDescription,
    embedding_format: EmbeddingFormat | None,
    values: Row,
    canonical_of: Callable[[str, Kind, Any], Scalar] | None = None,
) -> Content:
    """Return the content of a row from its column values.

    By default the values are those of a database driver. `canonical_of` converts metadata values of another form.
    """
    of = canonical_of or _canonical
    embedding = None
    if description.embedding is not None and embedding_format is not None:
        embedding = parse_embedding(embedding_format, values.get(description.embedding), description.embedding)
    return Content(
        tenant=row_tenant(description, values),
        text={name: _text(values.get(name)) for name in description.text},
        metadata={name: of(name, kind, values.get(name)) for name, kind in description.metadata.items()},
        embedding=embedding,
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _canonical(name: str, kind: Kind, value: Any) -> Scalar:
    try:
        return canonical(kind, value)
    except ValueError:
        _warn_once(f"column {name}: a value that is no {kind.value} is kept as the text that the database gives")
        return value.hex() if isinstance(value, bytes) else str(value)


def sql_text(kind: Kind, value: Scalar) -> str | None:
    """Return a metadata value as text that a database casts to its type. Raises ValueError for a wrong kind."""
    scalar = canonical(kind, value)
    if isinstance(scalar, bool):
        return "true" if scalar else "false"
    return None if scalar is None else str(scalar)


def parse_embedding(form: EmbeddingFormat, value: Any, column: str = "embedding") -> bytes | None:
    """Return a stored embedding as little-endian float32 bytes, None for NULL, all zeros or a malformed value.

    `pgvector` and `json` accept text and lists. `float32` accepts bytes and base64 text. Bytes of a `pgvector` have the
    form of its type's send function: two 16-bit numbers, then big-endian float32. Source: pgvector, `vector_send`.
    """
    if value is None:
        return None
    try:
        if form == "pgvector" and isinstance(value, bytes):
            vector = np.frombuffer(value, dtype=">f4", offset=4).astype("<f4")
        else:
            vector = _float32(value) if form == "float32" else _numbers(value)
    except (ValueError, TypeError):
        vector = None
    if vector is None or vector.ndim != 1 or not _is_usable(vector):
        _warn_once(f"column {column}: an embedding that is not {form}; the vector is computed instead")
        return None
    return vector.tobytes()


def _is_usable(vector: np.ndarray[Any, np.dtype[np.float32]]) -> bool:
    """Return whether a vector is finite and not all zeros. Its squared length shows this, unless it is out of range."""
    squared = float(np.vdot(vector, vector))  # unlike `dot`, it does not warn; suppressing that takes longer
    return 0 < squared < math.inf or bool(vector.any() and np.isfinite(vector).all())


def _float32(value: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    raw = base64.b64decode(value, validate=True) if isinstance(value, str) else bytes(value)
    return np.frombuffer(raw, dtype="<f4")


def _numbers(value: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    parsed = orjson.loads(value) if isinstance(value, (str, bytes)) else value
    if not isinstance(parsed, list) or not all(isinstance(n, (int, float)) for n in parsed):
        raise ValueError("not an array of numbers")
    with np.errstate(over="ignore"):
        return np.asarray(parsed, dtype=np.float64).astype("<f4")


def embedding_value(form: EmbeddingFormat, vector: bytes) -> str | bytes:
    """Return little-endian float32 bytes in the column's format: text for `pgvector` and `json`, otherwise bytes."""
    if form == "float32":
        return vector
    return orjson.dumps(np.frombuffer(vector, dtype="<f4"), option=orjson.OPT_SERIALIZE_NUMPY).decode()


def content_bytes(change: LegacyChange) -> int:
    """Return the approximate number of bytes that the content of a change takes in a statement."""
    content = change.content
    if content is None:
        return 64
    texts = (value for value in (*content.text.values(), *content.metadata.values()) if isinstance(value, str))
    return 256 + 2 * sum(map(len, texts)) + 4 * len(content.embedding or b"") + 64 * len(content.metadata)


@lru_cache(maxsize=256)
def _warn_once(message: str) -> None:
    _log.warning(message)
