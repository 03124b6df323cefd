"""A backfill's decisions about a document. Rule *insert-only*: it writes version 0, and only if no point exists."""

from __future__ import annotations

from collections.abc import Sequence

from domain.points import DocumentPoints, StoredChunk, newest_version

BACKFILL_VERSION = 0


def orphan_chunks(document: DocumentPoints, stored: Sequence[StoredChunk]) -> DocumentPoints | None:
    """Return the tombstones for orphan chunks of a backfilled document, None if there are none.

    A live write may come between the reading of a row and the insertion of its chunks. If it has fewer chunks, the
    remaining chunks of the backfill would stay as orphans. Their tombstones get the version of the live write. That
    write cannot have points with these numbers, because all of its points are written in one operation. A later write
    sees the tombstones, or is not affected by them.
    """
    newest = newest_version(stored)
    rest = [p.chunk for p in stored if p.version == BACKFILL_VERSION and not p.deleted]
    if newest <= BACKFILL_VERSION or not rest:
        return None
    return DocumentPoints(
        id=document.id,
        version=newest,
        tenant=document.tenant,
        content_hash=None,
        model=document.model,
        metadata={},
        chunks=(),
        tombstones=tuple(sorted(rest)),
    )
