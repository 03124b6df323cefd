"""Checksums over key ranges, for both databases: the number of rows, and a sum of their hashes. No statement is here.

A sum does not depend on the order of the rows, so the database does not have to sort.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from connectors.sql.layout import Layout

_HALF = 1 << 64


def range_checksum(rows: Any, high: Any, low: Any) -> str:
    """Return a checksum from the number of rows and the exact sums of the two 64-bit halves of their MD5 hashes."""
    return f"{int(rows):x}-{int(high or 0) % _HALF:016x}{int(low or 0) % _HALF:016x}"


def columns_name(database: str, expression: str, layout: Layout) -> str:
    """Return a name for the expression that a row's hash is made of, and for the uses and types of its columns.

    A column with another use or another type yields different points, although its bytes are the same.
    """
    description = layout.description
    uses = [
        *(f"{use}:{name}" for use in ("key", "text") for name in getattr(description, use)),
        *(f"metadata:{name}:{kind.name}" for name, kind in description.metadata.items()),
        f"tenant:{description.tenant}",
        f"embedding:{layout.collection.embedding!r}",
        *(f"type:{name}:{layout.columns[name].sql_type}" for name in layout.read_columns),
    ]
    return f"{database}-{blake2b(chr(10).join([expression, *uses]).encode(), digest_size=8).hexdigest()}"


def rows_counted(checksum: str) -> int:
    """Return the number of rows that a checksum covers."""
    return int(checksum.partition("-")[0], 16)
