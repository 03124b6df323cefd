"""Explains in words what differs between the places of one document, and why. Pure values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from domain.comparison import Difference, checksum_of, compare, wrong_vectors
from domain.points import StoredChunk
from domain.rollout.phases import PHASES
from migration.inspect.document import Document, Entry, Stores, place_of
from migration.verify.compare import facts_of, vector_difference, wrong_origin
from schemas.content import content_hash

Verdict = Literal["equal", "absent", "pending", "missing", "stale", "ghost", "unknown"]
ROW, POINTS, LEDGER, LOG = "row", "points", "ledger", "log"


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict over table and Qdrant, and the statements about it, the most important first."""

    verdict: Verdict
    messages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checks:
    """The checks of one point: whether payload and vector are as written (None without a checksum), and its norm."""

    payload: bool | None
    vector: bool | None
    norm: float | None


def explain(document: Document) -> Explanation:
    """Return the verdict: *pending* while a change of the document is in flight, *unknown* if a store was not read."""
    if ROW in document.unread or POINTS in document.unread:
        return Explanation("unknown", tuple(_unread(document)))
    difference = difference_of(document)
    nowhere = document.stores.row is None and not _visible(document.stores)
    sentences: list[str] = []
    verdict: Verdict
    if difference is None:
        verdict = "pending" if document.waiting else "absent" if nowhere else "equal"
        sentences.append("Neither the table nor Qdrant has it." if nowhere else "The table and Qdrant hold the same.")
    else:
        verdict = "pending" if document.waiting else difference.kind
        sentences.append(_sentence(difference))
    sentences += _waiting(document)
    sentences += _status(document, difference is not None)
    if difference is not None:
        sentences += _causes(document)
        sentences += _damage(document)
        if not document.waiting and difference.repairable:
            sentences.append(f"To repair: crossfade verify {document.collection} --repair")
    return Explanation(verdict, (*sentences, *_unread(document)))


def difference_of(document: Document) -> Difference | None:
    """Return how table and Qdrant differ, vectors included, or None if they do not."""
    stores = document.stores
    facts = facts_of(stores.row, stores.ledger, _size(stores), document.max_text_bytes)
    found = compare(document.id, facts, stores.points, model=document.model)
    if found is not None or facts is None:
        return found
    visible = _visible(stores)
    note = wrong_origin(facts, visible) if document.brings else ""
    wrong = wrong_vectors(visible, [facts.given] * len(visible), _size(stores))
    if wrong and not note:
        note = f"wrong vector of chunk {', '.join(str(visible[number].chunk) for number in sorted(wrong))}"
    return vector_difference(document.id, facts, visible, note) if note else None


def checks_of(document_id: str, point: StoredChunk) -> Checks:
    """Check by a point's own checksums whether it is as it was written."""
    payload = None if point.checksum is None else point.checksum == checksum_of(document_id, point)
    if point.vector is None:
        return Checks(payload, None, None)
    values = memoryview(point.vector).cast("f")
    norm = sum(value * value for value in values) ** 0.5
    vector = None if point.vector_checksum is None else not wrong_vectors([point], [None], len(values))
    return Checks(payload, vector, norm)


def _visible(stores: Stores) -> list[StoredChunk]:
    return [point for point in stores.points if not point.deleted]


def _size(stores: Stores) -> int:
    return next((len(point.vector) // 4 for point in _visible(stores) if point.vector is not None), 0)


def _sentence(difference: Difference) -> str:
    versions = f"the row is at {place_of(difference.legacy_version)}, Qdrant at {place_of(difference.vector_version)}"
    return {
        "missing": "The table has it, Qdrant does not.",
        "ghost": f"Qdrant shows it at {place_of(difference.vector_version)}, the table has no row.",
        "stale": f"Table and Qdrant differ: {difference.detail} ({versions}).",
    }[difference.kind]


def _waiting(document: Document) -> Iterator[str]:
    for each in document.waiting:
        age_s = max(0, document.now_ms - each.written_at_ms) / 1000
        where = f"{each.topic} {each.partition}:{each.offset}"
        yield f"A change is in flight: {each.role} has not finished {where}, written {age_s:.1f} s ago."


def _status(document: Document, differs: bool) -> Iterator[str]:
    if document.quarantine is not None:
        yield f"The collection is quarantined: {document.quarantine.message}. Remedy: {document.quarantine.remedy}"
    if differs and not PHASES[document.phase].writes_qdrant:
        yield f"The phase {document.phase} leaves Qdrant as it is."
    ledger = document.stores.ledger
    if ledger is not None and ledger.refused_version:
        yield f"The table refused version {place_of(ledger.refused_version)}; its refresh is not confirmed yet."
    for letter in document.letters:
        if not letter.replayed:
            place = f"crossfade dlt replay {letter.source} --partition {letter.partition} --offset {letter.offset}"
            yield f"A change of it is a dead letter of {letter.stage}: {letter.message}. To try it again: {place}"


def _causes(document: Document) -> Iterator[str]:
    """Yield what the log knows of the current content of the table."""
    log, row = document.log, document.stores.row
    if log is None or document.waiting:
        return
    newest = log.entries[-1] if log.entries else None
    if row is None:
        if newest is None or not newest.deleted:
            yield _unseen(document, "deletion")
        else:
            yield f"The log has its deletion at {place_of(newest.version)}, and Qdrant did not take it."
        return
    having = _having(log.entries, content_hash(row.content))
    if having is not None:
        yield f"The log has the row's content at {place_of(having.version)}, and every role has passed it."
    else:
        yield _unseen(document, "content")


def _having(entries: tuple[Entry, ...], hashed: str) -> Entry | None:
    return next((entry for entry in reversed(entries) if entry.content_hash == hashed), None)


def _unseen(document: Document, what: str) -> str:
    if document.log is not None and document.log.cut:
        return f"The part of the log that was read does not have the row's {what}: {document.log.cut}."
    return f"The log does not have the row's {what}: capture did not see it, or has not read it yet (look again)."


def _damage(document: Document) -> Iterator[str]:
    for point in document.stores.points:
        checks = checks_of(document.id, point)
        if checks.payload is False:
            yield f"Chunk {point.chunk}: its payload is not the one that crossfade wrote."
        if checks.vector is False:
            yield f"Chunk {point.chunk}: its vector is not the one that crossfade wrote."


def _unread(document: Document) -> Iterator[str]:
    yield from (f"Not read: {place}: {why}" for place, why in document.unread.items())
