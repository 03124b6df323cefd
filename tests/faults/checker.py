"""Checks whether any document is lost, stale, resurrected or torn.

It reads the tables by SQL, Qdrant by its client, and the outcomes from their topic. It does not use crossfade's
verifier, hashes or comparisons.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from connectors.qdrant.engine.client import HostedVectorStore
from domain.points import StoredChunk
from tests.contract.legacy_places import Connection
from tests.faults.seen import Seen
from tests.faults.traffic import Books, Sent, Store

PAGE_POINTS = 500
STORES = ("legacy", "qdrant")
Row = tuple[str, str | None, str | None, str | None, int | None]


@dataclass
class Findings:
    """What is wrong, by kind: each entry names the document or event and what was seen. Empty lists are a pass."""

    lost: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    ghosts: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    went_down: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.stale or self.ghosts or self.torn or self.went_down)

    def extend(self, other: Findings) -> None:
        for name in ("lost", "stale", "ghosts", "torn", "went_down"):
            getattr(self, name).extend(getattr(other, name))

    def __str__(self) -> str:
        parts = ("lost", "stale", "ghosts", "torn", "went_down")
        return "; ".join(f"{name} {len(found)}: {found[:4]}" for name in parts if (found := getattr(self, name)))


def squeezed(text: str) -> str:
    return "".join(text.split())


def hash_of(row: Row) -> str:
    """Return the content hash of the protocol, computed independently.

    It is BLAKE2b-128 over the canonical JSON of tenant, text and metadata.
    """
    _, title, body, kind, line = row
    text = {name: value for name, value in (("body", body), ("title", title)) if value}
    metadata = {name: value for name, value in (("kind", kind), ("line", line)) if value is not None}
    canonical = json.dumps(["default", text, metadata], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


async def rows_of(connection: Connection, table: str) -> dict[str, Row]:
    found = await connection.fetch(f"select id, title, body, kind, line from {table}")
    return {row[0]: (row[0], row[1], row[2], row[3], row[4]) for row in found}


async def points_of(vectors: HostedVectorStore, collection: str) -> dict[str, list[StoredChunk]]:
    """Return every point of a collection, tombstones included."""
    ids: set[str] = set()
    after: str | None = None
    while True:
        page = await vectors.scan_ids(collection, after, PAGE_POINTS)
        ids.update(await vectors.points(collection, page.ids))
        after = page.next
        if after is None:
            return await vectors.stored(collection, sorted(ids), content=True)


def check_contents(rows: Mapping[str, Row], points: Mapping[str, Sequence[StoredChunk]], store: Store) -> Findings:
    """Compare table and Qdrant, and the table with what was written."""
    found = Findings()
    for document_id in rows.keys() | points.keys():
        live = sorted((p for p in points.get(document_id, ()) if not p.deleted), key=lambda point: point.chunk)
        name, row = f"{store.name}/{document_id}", rows.get(document_id)
        if row is None:
            if live:
                found.ghosts.append(f"{name}: {live[0].text!r:.60}")
        elif not live:
            found.lost.append(f"{name}: row {row[1]} is not in Qdrant")
        else:
            _check_document(name, row, live, found)
    _check_stamps(rows, store, found)
    return found


def _check_document(name: str, row: Row, live: Sequence[StoredChunk], found: Findings) -> None:
    if len({point.version for point in live}) > 1 or [point.chunk for point in live] != list(range(len(live))):
        found.torn.append(f"{name}: chunks {[(point.chunk, point.version) for point in live]}")
    text = "".join(squeezed(point.text or "") for point in live)
    if text != squeezed(f"{row[1] or ''} {row[2] or ''}") or {point.content_hash for point in live} != {hash_of(row)}:
        found.stale.append(f"{name}: row {row[1]!r} by {row[3]}, Qdrant {live[0].text!r:.40} of {live[0].version}")
    for point in live:
        if point.vector is None or not math.isclose(_length(point.vector), 1.0, abs_tol=1e-3):
            found.torn.append(f"{name}: chunk {point.chunk} has no vector of length 1")


def _length(vector: bytes) -> float:
    return math.sqrt(sum(value * value for (value,) in struct.iter_unpack("<f", vector)))


def _check_stamps(rows: Mapping[str, Row], store: Store, found: Findings) -> None:
    """Check that each row is the last write of a producer or of the application, and nothing older."""
    last_sent = store.books.last_sent()
    for document_id in last_sent.keys() | store.books.direct.keys():
        pool = document_id.partition("-")[0]
        if pool == "refused":  # which change the table holds depends on the refusals: outcomes are checked instead
            continue
        wanted: set[str | None] = set()
        if document_id in last_sent:
            wanted.add(last_sent[document_id].stamp)
        if document_id in store.books.direct:
            wanted.add(store.books.direct[document_id])
        row = rows.get(document_id)
        stamp = row[1] if row else None
        if stamp not in wanted:
            kind = found.lost if row is None else found.stale
            kind.append(f"{store.name}/{document_id}: row {stamp!r}, written last {sorted(map(str, wanted))}")


def check_outcomes(books: Books, seen: Seen) -> tuple[Findings, Counter[str]]:
    """Check that every accepted submission has an outcome in both stores. Count each once, by its worst outcome."""
    found = Findings()
    counts: Counter[str] = Counter()
    for sent in books.sent.values():
        if sent.error is not None:
            found.lost.append(f"{sent.document_id}: not accepted: {sent.error}")
            continue
        reported = seen.outcomes.get(sent.event_id, [])
        ended = _ended(sent, reported, seen, found)
        if ended is not None:
            counts[ended] += 1
    return found, counts


def _ended(
    sent: Sent, reported: Sequence[tuple[str | None, str, int | None, str]], seen: Seen, found: Findings
) -> str | None:
    name = f"{sent.store}/{sent.document_id} {sent.stamp}"
    if any(store is None and outcome == "dead_lettered" for store, outcome, _, _ in reported):
        return "dead_lettered"
    worst = "applied"
    for store in STORES:
        own = [(outcome, version) for where, outcome, version, _ in reported if where == store]
        kinds = {outcome for outcome, _ in own}
        if not own:
            found.lost.append(f"{name}: no outcome in {store}")
            return None
        if "dead_lettered" in kinds:
            worst = "dead_lettered"
        elif "applied" not in kinds:
            version = max(version or 0 for _, version in own)
            if seen.resolved.get(f"{sent.store}/{sent.document_id}", -1) <= version:
                found.lost.append(f"{name}: told superseded in {store}, but nothing is above {version}")
            worst = "superseded" if worst == "applied" else worst
    if sent.refused and worst == "applied":
        found.torn.append(f"{name}: told applied, though the table refuses it")
    return worst


class Versions:
    """Samples of stored versions. No version may ever be below an earlier one of the same document."""

    def __init__(self) -> None:
        self._highest: dict[tuple[str, str, str], int] = {}
        self.samples = 0
        self.found = Findings()

    def note(self, where: str, collection: str, versions: Mapping[str, int | None]) -> None:
        self.samples += 1
        for document_id, version in versions.items():
            if version is None:
                continue
            key = (where, collection, document_id)
            if version < self._highest.get(key, -1):
                self.found.went_down.append(f"{where} {collection}/{document_id}: {self._highest[key]} to {version}")
            self._highest[key] = max(version, self._highest.get(key, -1))

    async def sample_table(self, connection: Connection, collection: str) -> None:
        rows: list[tuple[Any, ...]] = await connection.fetch(f"select id, crossfade_version from {collection}")
        self.note("row", collection, dict(rows))
        statement = "select document_id, version, legacy_version, vector_version from crossfade_ledger"
        ledger = await connection.fetch(f"{statement} where collection = '{collection}'")
        for number, where in enumerate(("ledger", "ledger legacy", "ledger vector"), 1):
            self.note(where, collection, {row[0]: row[number] for row in ledger})

    async def sample_points(self, vectors: HostedVectorStore, collection: str) -> None:
        page = await vectors.scan_ids(collection, None, PAGE_POINTS)
        found = await vectors.points(collection, page.ids)
        versions = {f"{name}#{p.chunk}": p.version for name, points in found.items() for p in points}
        self.note("Qdrant", collection, versions)
