"""What a checksum over a key range is made of, whatever the database: the number of rows, and a sum of their hashes.

A sum does not depend on an order, so that no database has to sort. No statement is built here.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from connectors.sql.layout import Layout

_HALF = 1 << 64


def range_checksum(rows: Any, high: Any, low: Any) -> str:
    """Return a checksum from the number of rows and the exact sums of both halves (64 bits) of their MD5."""
    return f"{int(rows):x}-{int(high or 0) % _HALF:016x}{int(low or 0) % _HALF:016x}"


def columns_name(database: str, expression: str, layout: Layout) -> str:
    """Return what stands for the expression that a row's hash is made of, and for what its columns are used as.

    Of a column that is used otherwise, or has another type, the points are other ones, though its bytes are the same.
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
    """Return the number of rows that a checksum is of."""
    return int(checksum.partition("-")[0], 16)
