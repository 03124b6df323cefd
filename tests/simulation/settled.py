"""The invariants that must hold when everything is at rest: every event has its end, and both stores hold the same.

The numbers in messages are those of the protocol's invariants: 1 counts, 4 and 6 convergence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np
import orjson

from connectors.vector_ports import VectorStore
from domain.fold import LedgerState, Verdict, fold
from domain.ledger import LedgerRow
from domain.legacy import LegacyRow
from domain.points import StoredChunk, given_by
from schemas.cloudevents import decode
from schemas.content import content_hash
from schemas.documents import DocumentChanged, Position
from schemas.keys import version_of
from tests.simulation.loop import Violation, at_once
from tests.simulation.places import MAX_TEXT_BYTES
from tests.simulation.ports import NO_VECTOR
from tests.simulation.watch import EPOCH, Watch, place_of
from tests.simulation.world import given
from topics.catalogue import LOG, SUBMITTED

# The stages whose dead letters leave the stores different until the verifier repairs them: the change itself never
# reached Qdrant. A dead letter of the legacy writer does so only if the log refused its refresh entry, not if the table
# refused the change.
APART = ("capture", "resolver", "embedder", "vector")


def check_counts(watch: Watch) -> Counter[str]:
    """Check that every submission has exactly one end; return the number of submissions with each end."""
    versions: dict[str, list[tuple[str, int]]] = {}
    for (key, version), event in watch.resolved.items():
        if event["origin"] == "producer":
            versions.setdefault(event["cause"], []).append((key, version))
    newest: dict[str, int] = {}
    for key, version in watch.resolved:
        newest[key] = max(version, newest.get(key, 0))
    ends: Counter[str] = Counter()
    for record in watch.bus.records(SUBMITTED):
        cause = _cause(record.header("ce_id"), record.value)
        ends[_end(watch, cause, place_of(record), versions.get(cause, []), newest)] += 1
    if ends.total() != len(watch.submitted):
        raise Violation(f"1: {len(watch.submitted)} events were submitted, {dict(ends)} have an end")
    _check_qdrant_outcomes(watch, newest)
    return ends


def _cause(event_id: str | None, value: bytes | None) -> str:
    return event_id or str(orjson.loads(value or b"{}")["id"])


def _end(watch: Watch, cause: str, place: str, versions: list[tuple[str, int]], newest: Mapping[str, int]) -> str:
    if not versions:
        unresolved = [entry for entry in watch.logged.get(place, []) if place_of(entry) in _dead(watch, "resolver")]
        if place in _dead(watch, "intake") and cause in watch.refused:
            return "dead_lettered"
        if unresolved and cause in watch.refused:
            return "dead_lettered"
        raise Violation(f"1: {cause} is neither resolved nor in a dead-letter topic")
    if len(versions) > 1:
        raise Violation(f"1: {cause} took effect as {len(versions)} versions: {versions}")
    key, version = versions[0]
    reported = watch.reported.get((key, version, "legacy"), set())
    if "dead_lettered" in reported:
        if "applied" in reported and (key, version) not in watch.copied:
            raise Violation(f"1: {cause} was told applied and dead-lettered")
        return "dead_lettered"
    if "applied" in reported:
        if (key, version) not in watch.applied | watch.copied:
            raise Violation(f"1: {cause} was told applied, and the table never had it")
        return "applied"
    if "superseded" in reported:
        if newest[key] <= version:
            raise Violation(f"1: {cause} was told superseded, and nothing is newer")
        return "superseded"
    raise Violation(f"1: nothing was told of {cause}, version {version} of {key}")


def _check_qdrant_outcomes(watch: Watch, newest: Mapping[str, int]) -> None:
    for key, version in watch.resolved:
        reported = watch.reported.get((key, version, "qdrant"), set())
        event = watch.resolved[key, version]
        if event["origin"] != "producer" and (key, version, "legacy") in watch.reported:
            raise Violation(f"1: the table's outcome of version {version} of {key} was told, which came from the table")
        if watch.waits_for_its_row((key, version)):
            _check_row_outcomes(watch, newest, key, version)
            continue
        others = {one for one, _ in watch.reported_for_rows.get(event["cause"], set())} - {version}
        if event["origin"] == "producer" and others:
            raise Violation(f"1: Qdrant's outcome of {event['cause']} was told of {version} and of {others} of {key}")
        if not reported:
            raise Violation(f"1: Qdrant's outcome of version {version} of {key} was never told")
        if "applied" in reported and watch.is_too_long((key, version)):
            raise Violation(f"1: Qdrant's version {version} of {key} was told applied, and is too long for it")
        # A replaced writer reports "applied" for a version that another overtook between its check and its write.
        if "applied" in reported and watch.newest.get(key, -1) < version:
            raise Violation(f"1: version {version} of {key} was told applied, and Qdrant never had it or a newer one")
        if reported == {"superseded"} and newest[key] <= version:
            raise Violation(f"1: Qdrant's version {version} of {key} was told superseded, and nothing is newer")


def _check_row_outcomes(watch: Watch, newest: Mapping[str, int], key: str, version: int) -> None:
    """Check Qdrant's outcomes for an event that leaves columns out: they are for its row, and carry the event's id."""
    cause = watch.resolved[key, version]["cause"]
    reported = watch.reported_for_rows.get(cause, set())
    if not reported:
        raise Violation(f"1: Qdrant's outcome of {cause}, version {version} of {key}, was never told")
    if (version, "applied") in reported:
        raise Violation(f"1: {cause} was told applied as {version} of {key}, and not as its row")
    for one, outcome in reported:
        if outcome == "applied" and watch.newest.get(key, -1) < one:
            raise Violation(f"1: the row of {cause} was told applied as {one} of {key}, and Qdrant never had it")
    if {outcome for _, outcome in reported} == {"superseded"} and newest[key] <= max(reported)[0]:
        raise Violation(f"1: the row of {cause} is superseded, and nothing of {key} is newer than {max(reported)[0]}")


def _dead(watch: Watch, stage: str) -> set[str]:
    return watch.dead.get(stage, set())


def apart(watch: Watch) -> set[str]:
    """Return the keys of documents that may differ between the stores because of dead letters."""
    places = {stage: _dead(watch, stage) for stage in APART} | {"legacy": watch.not_refreshed}
    return {key for stage in places for key in _keys(watch, stage, places[stage])}


def _keys(watch: Watch, stage: str, places: Collection[str]) -> set[str]:
    found: set[str] = set()
    for place in places:
        topic, partition, offset = place.rsplit("/", 2)
        record = watch.bus.read(topic, int(partition), int(offset), 1)[0]
        key = (record.key or b"").decode()
        if stage == "capture":
            key = f"{topic.rpartition('.')[2]}/{orjson.loads(key)['id']}"
        found.add(key)
    return found


def unembeddable(watch: Watch) -> set[str]:
    """Return the keys of documents that Qdrant does not hold: their rows have no usable vector, or are too long."""
    return {
        f"{name}/{row.id}"
        for name, legacy in watch.legacy.items()
        for row in legacy.stored.values()
        if (NO_VECTOR in row.content.full_text() and row.content.embedding is None)
        or row.content.text_bytes() > MAX_TEXT_BYTES
    }


def check_fold(watch: Watch) -> None:
    """Check that the resolved versions and the ledger are exactly what the log folds to."""
    states: dict[str, LedgerState] = {}
    effects: set[tuple[str, int]] = set()
    skipped = apart(watch)
    for record in watch.bus.records(LOG):
        key, version = (record.key or b"").decode(), version_of(EPOCH, record.offset)
        verdict, states[key] = fold(states.get(key, LedgerState()), version, decode(record, DocumentChanged)[0])
        if verdict is Verdict.TAKES_EFFECT:
            effects.add((key, version))
    wrong = {one for one in effects ^ watch.resolved.keys() if one[0] not in skipped}
    if wrong:
        raise Violation(f"4: resolved, or not, against the log: {sorted(wrong)}")
    for key, state in states.items():
        name, _, document_id = key.partition("/")
        row = watch.legacy[name].ledger_rows.get(document_id, LedgerRow())
        if key not in skipped and row.state != state:
            raise Violation(f"4: the ledger of {key} is {row.state}, the log folds to {state}")


def check_captured(watch: Watch) -> None:
    """Check which captured changes took effect, whatever followed: a later reading of the row may hide a mistake."""
    entries: dict[str, list[tuple[int, DocumentChanged]]] = {}
    for record in watch.bus.records(LOG):
        entry = decode(record, DocumentChanged)[0]
        entries.setdefault((record.key or b"").decode(), []).append((version_of(EPOCH, record.offset), entry))
    # An entry that the resolver gave up may still have been published, and the ledger does not wait for it.
    for key in sorted(entries.keys() - _keys(watch, "resolver", _dead(watch, "resolver"))):
        _check_captured(key, entries[key], {version for other, version in watch.resolved if other == key})


def _check_captured(key: str, logged: list[tuple[int, DocumentChanged]], resolved: set[int]) -> None:
    producers = {version for version, entry in logged if entry.origin == "producer"}
    echoes: dict[int | None, Position] = {}
    for _, entry in logged:
        if entry.origin == "legacy" and not entry.snapshot and entry.after_version not in {None, entry.before_version}:
            # The first is the write itself: a row that is archived and inserted again looks like a second write.
            echoes[entry.after_version] = min(entry.position, echoes.get(entry.after_version, entry.position))
    taken: set[Position] = set()
    awaited: int | None = None
    for version, entry in logged:
        if entry.origin == "refresh":
            awaited = None  # the refresh may have ended the wait
        elif entry.origin == "producer":
            awaited = None if entry.deleted else version if version in resolved else awaited
        elif version in resolved:
            if entry.position in taken:
                raise Violation(f"4: a second delivery of a captured change of {key} took effect as {version}")
            taken.add(entry.position)
            if entry.after_version in producers and echoes.get(entry.after_version) == entry.position:
                raise Violation(f"4: the echo of {entry.after_version} of {key} took effect as {version}")
            if awaited in echoes and entry.position < echoes[awaited]:
                raise Violation(f"4: a captured change of {key} took effect behind {awaited}, which overwrites it")


def in_qdrant(vectors: VectorStore, name: str) -> Collection[str]:
    """Return the documents that have points in a collection."""
    return at_once(vectors.points(name, at_once(vectors.scan_ids(name, None, 10_000)).ids))


def check_stores(watch: Watch, left_out: set[str]) -> None:
    """Check that Qdrant holds exactly what the tables hold, except for the documents in `left_out`."""
    for name, legacy in watch.legacy.items():
        ids = sorted({*in_qdrant(watch.vectors, name), *legacy.stored})
        stored = at_once(watch.vectors.stored(name, ids, content=True))
        for document_id in ids:
            if f"{name}/{document_id}" not in left_out:
                _check_document(watch, name, document_id, legacy.stored.get(document_id), stored.get(document_id, []))


def _check_document(
    watch: Watch, name: str, document_id: str, row: LegacyRow | None, points: list[StoredChunk]
) -> None:
    key = f"{name}/{document_id}"
    visible = [point for point in points if not point.deleted]
    if row is None:
        if visible:
            raise Violation(f"6: {key} is a ghost: version {visible[0].version} in Qdrant, no row")
        return
    text, embedding = row.content.full_text(), row.content.embedding
    texts = [text] if embedding is not None else [*watch.embedder.chunks(text)]
    if [point.text for point in visible] != texts and [point.text for point in visible] != [text]:
        raise Violation(f"6: {key} is {'stale' if visible else 'missing'}: not the text of the row")
    if any(point.content_hash != content_hash(row.content) for point in visible):
        raise Violation(f"6: {key} is stale: not the content of the row")
    if any(point.tenant != row.content.tenant for point in visible):
        raise Violation(f"13: {key} is of another tenant in Qdrant than in the table")
    for point in visible:
        _check_vector(watch, key, point, embedding)
    ledger = watch.legacy[name].ledger_rows.get(document_id)
    if watch.harmed:
        return
    if ledger is None or ledger.chunk_count != len(visible) or ledger.vector_version != visible[0].version:
        raise Violation(f"6: the ledger does not say what Qdrant holds of {key}")


def _check_vector(watch: Watch, key: str, point: StoredChunk, embedding: bytes | None) -> None:
    allowed = [watch.embedder.vector(point.text or "")] if embedding is None else [embedding]
    if embedding is None and point.model == given_by(watch.embedder.model_key):
        # Some chunk of the document has the text of a chunk that came with a precomputed embedding.
        submits = [s for s in watch.submitted.values() if s.document == key and s.body and s.body.given]
        allowed += [np.asarray(given(s.body.given), dtype="<f4").tobytes() for s in submits if s.body]
    if point.vector not in allowed:
        raise Violation(f"6: a vector of {key} is not that of its text")
