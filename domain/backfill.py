"""What a backfill decides of a document. Rule *insert-only*: it writes version 0, and only where no point is."""

from __future__ import annotations

from collections.abc import Sequence

from domain.points import DocumentPoints, StoredChunk, newest_version

BACKFILL_VERSION = 0


def orphan_chunks(document: DocumentPoints, stored: Sequence[StoredChunk]) -> DocumentPoints | None:
    """Return the tombstones that end chunks of a backfilled document, None where there is nothing to end.

    A live write may come between the reading of a row and the insertion of its chunks, and have fewer of them: the
    rest would stay beside it. They get the version of the live write, which cannot have points of these numbers, since
    all of its points are written in one operation; a later write sees them, or is not touched.
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
