"""Whether both stores hold the same document. What could not be read is the caller's *unknown*, never equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domain.points import StoredChunk
from schemas.documents import DifferenceKind


@dataclass(frozen=True, slots=True)
class LegacyFacts:
    """What the legacy store says of a document; `chunk_count` is the ledger's, None where it has none."""

    version: int | None
    content_hash: str
    chunk_count: int | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One document that is not the same in both stores; `detail` names the disagreement without any text of it."""

    id: str
    kind: DifferenceKind
    detail: str
    legacy_version: int | None = None
    vector_version: int | None = None


def compare(document_id: str, legacy: LegacyFacts | None, stored: Sequence[StoredChunk]) -> Difference | None:
    """Return how the two differ, or None where they hold the same."""
    visible = [point for point in stored if not point.deleted]
    newest = max((point.version for point in visible), default=None)
    if legacy is None:
        if not visible:
            return None
        return Difference(document_id, "ghost", "no legacy row", None, newest)
    if not visible:
        return Difference(document_id, "missing", "no visible point", legacy.version, None)
    detail = _disagreement(legacy, visible)
    return Difference(document_id, "stale", detail, legacy.version, newest) if detail else None


def _disagreement(legacy: LegacyFacts, visible: Sequence[StoredChunk]) -> str | None:
    versions = {point.version for point in visible}
    numbers = sorted(point.chunk for point in visible)
    if len(versions) > 1:
        return f"chunks of {len(versions)} versions"
    if any(point.content_hash != legacy.content_hash for point in visible):
        return "content hash"
    if numbers != list(range(len(numbers))):
        return "chunk missing or doubled"
    if legacy.chunk_count is not None and len(numbers) != legacy.chunk_count:
        return f"{len(numbers)} chunks, the ledger says {legacy.chunk_count}"
    if legacy.version is not None and max(versions) not in (0,) and max(versions) < legacy.version:
        return "version below the row's"
    return None
