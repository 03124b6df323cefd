"""A table of many rows with embeddings, filled in seconds: numpy makes PostgreSQL's binary COPY format.

Source of the format: PostgreSQL, "COPY", binary format; pgvector, `vector_send`.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterator

import numpy as np

from load.place import DIMENSION, ROWS, Sql

_BATCH = 5_000
_TEXT_BYTES = 300
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_ROW = np.dtype(
    [
        ("fields", ">i2"),
        ("id_bytes", ">i4"),
        ("id", ">i8"),
        ("body_bytes", ">i4"),
        ("body", f"S{_TEXT_BYTES}"),
        ("embedding_bytes", ">i4"),
        ("dimension", ">i2"),
        ("unused", ">i2"),
        ("embedding", ">f4", (DIMENSION,)),
    ]
)


async def make_rows(sql: Sql, count: int, texts: list[str]) -> None:
    """Fill the table, if it is empty, with rows 1 to `count`: texts of 300 bytes, and vectors that have neighbours."""
    if await sql.fetchval(f"SELECT EXISTS (SELECT FROM {ROWS})"):
        return

    async def stream() -> AsyncIterator[bytes]:
        yield _SIGNATURE
        for part in _batches(count, texts):
            yield part
        yield struct.pack(">h", -1)

    await sql.copy_to_table(ROWS, source=stream(), columns=["id", "body", "embedding"], format="binary")
    await sql.execute(f"ANALYZE {ROWS}")


def _batches(count: int, texts: list[str]) -> Iterator[bytes]:
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((64, DIMENSION)).astype(np.float32)
    bodies = np.array([_body(text) for text in texts], dtype=f"S{_TEXT_BYTES}")
    for first in range(1, count + 1, _BATCH):
        size = min(_BATCH, count + 1 - first)
        rows = np.zeros(size, dtype=_ROW)
        rows["fields"], rows["id_bytes"], rows["body_bytes"] = 3, 8, _TEXT_BYTES
        rows["embedding_bytes"], rows["dimension"] = 4 + 4 * DIMENSION, DIMENSION
        rows["id"] = np.arange(first, first + size)
        rows["body"] = bodies[np.arange(first, first + size) % len(bodies)]
        near = centres[rng.integers(0, len(centres), size)]
        rows["embedding"] = near + rng.standard_normal((size, DIMENSION)).astype(np.float32)
        yield rows.tobytes()


def _body(text: str) -> bytes:
    """Return the text, cut or repeated to exactly `_TEXT_BYTES` bytes, all of them ASCII."""
    plain = text.encode("ascii", "replace").replace(b"\0", b" ")
    return (plain * (1 + _TEXT_BYTES // max(1, len(plain))))[:_TEXT_BYTES].ljust(_TEXT_BYTES, b".")
