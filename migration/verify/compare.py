"""One comparison of some documents: rows against points and ledger, every payload and every vector. No recheck here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from msgspec import structs

from domain.comparison import (
    Difference,
    Disagreement,
    LegacyFacts,
    compare,
    is_checked,
    points_digest,
    wrong_vectors,
)
from domain.ledger import LedgerRow
from domain.legacy import LegacyRow
from domain.points import StoredChunk, newest_version
from migration.collection import CollectionStores
from schemas.content import content_hash

Points = Sequence[StoredChunk]


@dataclass(frozen=True, slots=True)
class Look:
    """The result of one comparison: facts and points of each document, and the documents that differ.

    `unchecked` documents are equal as far as can be determined: their points carry no checksums.
    """

    facts: Mapping[str, LegacyFacts | None]
    points: Mapping[str, Points]
    differences: dict[str, Difference] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)

    @property
    def visible(self) -> int:
        """Number of visible points."""
        return sum(not point.deleted for points in self.points.values() for point in points)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document that differed in the first comparison, and what was seen of it, without its text and vectors."""

    id: str
    facts: LegacyFacts | None
    digest: bytes
    version: int


def candidate(document_id: str, facts: LegacyFacts | None, points: Points) -> Candidate:
    """Return what is kept of a document until its recheck."""
    return Candidate(document_id, small(facts), points_digest(points), newest_version(points))


def small(facts: LegacyFacts | None) -> LegacyFacts | None:
    """Return the facts with the embedding replaced by its hash."""
    if facts is None or facts.given is None:
        return facts
    return structs.replace(facts, given=blake2b(facts.given, digest_size=16).digest())


async def look(stores: CollectionStores, ids: Sequence[str], rows: Mapping[str, LegacyRow]) -> Look:
    """Compare documents, whose `rows` were just read, with Qdrant. Raises StoreUnavailable, TransientError."""
    stored = await stores.vectors.stored(stores.name, ids, content=True)
    ledger = await stores.ledger.read(ids)
    facts = {i: facts_of(rows.get(i), ledger.get(i), stores.dimension, stores.max_text_bytes) for i in ids}
    seen = Look(facts, stored)
    for document_id in ids:
        difference = compare(document_id, facts[document_id], stored.get(document_id, ()), model=stores.model)
        if difference is not None:
            seen.differences[document_id] = difference
        elif not is_checked(stored.get(document_id, ())):
            seen.unchecked.append(document_id)
    seen.differences.update(_by_vector(stores, seen))
    return seen


async def look_locked(stores: CollectionStores, ids: Sequence[str]) -> Look:
    """Compare documents; read their rows with a lock that waits for transactions that are still ending."""
    return await look(stores, ids, await stores.table.rows(ids))


def facts_of(
    row: LegacyRow | None, ledger: LedgerRow | None, dimension: int, max_text_bytes: int | None
) -> LegacyFacts | None:
    """Return what the legacy store holds of a document, None without a row. A vector of another length is none."""
    if row is None:
        return None
    content, given = row.content, row.content.embedding
    return LegacyFacts(
        row.version,
        content_hash(content),
        ledger.chunk_count if ledger else None,
        ledger.vector_version if ledger else None,
        content.tenant,
        content.metadata,
        given if given is not None and len(given) == 4 * dimension else None,
        content.refusal(max_text_bytes),
    )


def wrong_origin(facts: LegacyFacts, visible: Points) -> str:
    """Return the note of a vector that was computed although the row brings one, or the reverse; empty without one.

    For tables with a column of embeddings.
    """
    if all((facts.given is not None) == point.precomputed for point in visible):
        return ""
    return f"wrong vector: {'computed, the row brings one' if facts.given else 'given, the row brings none'}"


def vector_difference(document_id: str, facts: LegacyFacts, visible: Points, note: str = "") -> Difference:
    """Return the difference of a document with visible points that differs only by a vector."""
    newest = newest_version(visible)
    return Difference(document_id, "stale", Disagreement.VECTOR, facts.version, newest, note=note)


def _by_vector(stores: CollectionStores, seen: Look) -> dict[str, Difference]:
    """Return the documents that differ by a vector and in no other way."""
    whose: list[str] = []
    points: list[StoredChunk] = []
    given: list[bytes | None] = []
    looked: dict[str, tuple[LegacyFacts, Points]] = {}
    found: dict[str, Difference] = {}
    keeps_given = stores.description.embedding is not None
    for document_id, stored in seen.points.items():
        facts = seen.facts[document_id]
        if facts is None or document_id in seen.differences:
            continue
        visible = [point for point in stored if not point.deleted]
        if keeps_given and (note := wrong_origin(facts, visible)):
            found[document_id] = vector_difference(document_id, facts, visible, note)
        looked[document_id] = facts, visible
        whose += [document_id] * len(visible)
        points += visible
        given += [facts.given] * len(visible)
    for n in wrong_vectors(points, given, stores.dimension):
        found.setdefault(whose[n], vector_difference(whose[n], *looked[whose[n]]))
    return found
