"""Turns table rows into points of version 0: precomputed embeddings are kept, other texts are cut and embedded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from connectors.errors import EmbeddingFailed
from connectors.ports import Embedder
from domain.backfill import BACKFILL_VERSION
from domain.legacy import LegacyRow
from domain.points import DocumentPoints, PointChunk, chunks_of, given_by, vector_checksums
from schemas.content import content_hash

# Yield after this many rows: another range may have work for Qdrant, which must not run dry meanwhile.
ROWS_A_TURN = 128


@dataclass(slots=True)
class Made:
    """The documents of a page of rows, and by id why the others cannot be made here."""

    documents: list[DocumentPoints] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


async def documents_of(
    rows: Sequence[LegacyRow], embedder: Embedder, *, given: bool, max_text_bytes: int | None = None
) -> Made:
    """Return rows as documents; `given` says that the table has a column of embeddings.

    Rows that Qdrant has no place for are left to the agents, which refuse them.

    Raises EmbeddingUnavailable if the engine does not answer.
    """
    made = Made(failed={row.id: why for row in rows if (why := row.content.refusal(max_text_bytes))})
    rows = [row for row in rows if row.id not in made.failed] if made.failed else rows
    size = 4 * embedder.dimension
    ready = [row for row in rows if given and row.content.embedding is not None and len(row.content.embedding) == size]
    for start in range(0, len(ready), ROWS_A_TURN):
        made.documents += _given(ready[start : start + ROWS_A_TURN], given_by(embedder.model_key))
        await asyncio.sleep(0)
    if len(ready) < len(rows):
        done = {row.id for row in ready}
        await _embed([row for row in rows if row.id not in done], embedder, made)
    return made


def _given(rows: Sequence[LegacyRow], model: str) -> list[DocumentPoints]:
    vectors = [row.content.embedding or b"" for row in rows]
    return [
        _document(row, model, (PointChunk(row.content.full_text(), vector, checksum),))
        for row, vector, checksum in zip(rows, vectors, vector_checksums(vectors), strict=True)
    ]


async def _embed(rows: Sequence[LegacyRow], embedder: Embedder, made: Made) -> None:
    try:
        pieces = await embedder.chunked([row.content.full_text() for row in rows])
        vectors = await embedder.embed_documents([text for texts in pieces for text in texts])
    except EmbeddingFailed as error:
        if len(rows) == 1:
            made.failed[rows[0].id] = str(error)
            return
        # One bad text fails its whole call: halving finds which.
        middle = len(rows) // 2
        await _embed(rows[:middle], embedder, made)
        await _embed(rows[middle:], embedder, made)
        return
    at = 0
    for row, texts in zip(rows, pieces, strict=True):
        made.documents.append(_document(row, embedder.model_key, chunks_of(texts, vectors[at : at + len(texts)])))
        at += len(texts)


def _document(row: LegacyRow, model: str, chunks: tuple[PointChunk, ...]) -> DocumentPoints:
    content = row.content
    return DocumentPoints(
        id=row.id,
        version=BACKFILL_VERSION,
        tenant=content.tenant,
        content_hash=content_hash(content),
        model=model,
        metadata=content.metadata,
        chunks=chunks,
        tombstones=(),
    )
