"""The fold of the write protocol: apply one log entry to the ledger's state of its document.

Each rule is a small predicate with its own name, so that a test can remove one and see the protocol fail.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from schemas.documents import DocumentChanged, Position


class Verdict(Enum):
    """The outcome of an entry; only TAKES_EFFECT is resolved and written to the stores."""

    TAKES_EFFECT = "takes effect"
    DUPLICATE = "a second delivery"
    ECHO = "our own write, captured"
    OVERTAKEN = "older than a producer's change that will overwrite it"
    REMOVED = "belongs to a row that a producer's deletion removes"
    READ_AGAIN = "the row must be read again"


@dataclass(frozen=True, slots=True)
class LedgerState:
    """What the resolver remembers about one document. A pure function of the log up to `version`.

    `producer_positions` holds the newest (partition, epoch, offset) of each partition of the submitted topic that the
    document came through: producers in different languages may partition the same key differently.
    """

    version: int = 0
    written: int = 0
    pending: bool = False
    removed: bool = False
    refresh: bool = False
    legacy_position: Position = ()
    producer_positions: tuple[tuple[int, int, int], ...] = ()


def fold(ledger: LedgerState, version: int, entry: DocumentChanged) -> tuple[Verdict, LedgerState]:
    """Return the verdict on one log entry, and the ledger state after it."""
    seen = replace(ledger, version=version)
    if entry.origin == "producer":
        return _fold_producer(ledger, seen, version, entry)
    if entry.origin == "refresh":
        return _fold_refresh(ledger, seen, entry)
    return _fold_captured(ledger, seen, entry)


def _fold_producer(
    ledger: LedgerState, seen: LedgerState, version: int, entry: DocumentChanged
) -> tuple[Verdict, LedgerState]:
    if producer_delivered_again(ledger, entry):
        return Verdict.DUPLICATE, seen
    return Verdict.TAKES_EFFECT, replace(
        seen,
        written=version,
        pending=not entry.deleted,
        removed=entry.deleted,
        refresh=False,
        producer_positions=_advance(ledger.producer_positions, entry.position),
    )


def _fold_refresh(ledger: LedgerState, seen: LedgerState, entry: DocumentChanged) -> tuple[Verdict, LedgerState]:
    ledger, seen = _without_disproved(ledger, entry), _without_disproved(seen, entry)
    ended = entry.rejects or wait_is_ended(ledger, entry)
    if entry.rejects and entry.rejects != ledger.written:
        return Verdict.OVERTAKEN, seen
    if ledger.pending and not ended:
        # This holds even if the row already has the awaited write. Older captured changes may still arrive, and the
        # echo of the write, which ends the wait, follows them. A later write to the row is captured after the echo.
        return Verdict.OVERTAKEN, replace(seen, refresh=False)
    if entry.incomplete or refresh_is_outdated(ledger, entry):
        return Verdict.READ_AGAIN, replace(seen, pending=False, removed=ledger.removed and not ended, refresh=True)
    if deletion_is_under_way(ledger, entry) and not ended:
        return Verdict.OVERTAKEN, replace(seen, refresh=False)
    return Verdict.TAKES_EFFECT, replace(seen, pending=False, removed=False, refresh=False)


def _fold_captured(ledger: LedgerState, seen: LedgerState, entry: DocumentChanged) -> tuple[Verdict, LedgerState]:
    if captured_delivered_again(ledger, entry):
        return Verdict.DUPLICATE, seen
    seen = replace(seen, legacy_position=max(entry.position, ledger.legacy_position))
    if is_echo(entry):
        return _fold_echo(ledger, seen, entry)
    if is_pending(ledger, entry):
        return Verdict.OVERTAKEN, seen
    if belongs_to_removed_row(ledger, entry):
        return Verdict.REMOVED, seen
    unclear = may_be_of_removed_row(ledger, entry)
    after = replace(seen, pending=False, removed=ledger.removed and (entry.deleted or unclear))
    if entry.incomplete or unclear:
        return Verdict.READ_AGAIN, replace(after, refresh=True)
    return Verdict.TAKES_EFFECT, replace(after, refresh=False)


def _fold_echo(ledger: LedgerState, seen: LedgerState, entry: DocumentChanged) -> tuple[Verdict, LedgerState]:
    if is_unawaited(ledger):
        return Verdict.READ_AGAIN, replace(seen, refresh=True)
    return Verdict.ECHO, replace(seen, pending=entry.after_version != ledger.written)


def producer_delivered_again(ledger: LedgerState, entry: DocumentChanged) -> bool:
    """Rule *position* for the submitted topic: at or below the newest position seen of that partition."""
    epoch, partition, offset = entry.position
    return any(p == partition and (epoch, offset) <= (e, o) for p, e, o in ledger.producer_positions)


def captured_delivered_again(ledger: LedgerState, entry: DocumentChanged) -> bool:
    """Rule *position* for captured changes: at or below the newest position folded (see `domain.positions`)."""
    return entry.position <= ledger.legacy_position


def is_echo(entry: DocumentChanged) -> bool:
    """Rule *echo*: only the legacy writer changes the version column, so an upsert that changes it is our own.

    A snapshot row has no *before* and is never taken for an echo.
    """
    return (
        not entry.deleted
        and not entry.snapshot
        and entry.after_version is not None
        and entry.after_version != entry.before_version
    )


def is_unawaited(ledger: LedgerState) -> bool:
    """Return whether no echo is awaited. A change that looks like one is then ambiguous: the row must be read again.

    It may come from a write before a refused one, from a write whose wait was ended, or from no write of ours: a row
    that was archived and inserted again carries its old version.
    """
    return not ledger.pending


def is_pending(ledger: LedgerState, entry: DocumentChanged) -> bool:
    """Rule *pending*: captured changes are older than the producer's upsert until its echo is captured.

    A snapshot row with the awaited version shows that the write did happen: it ends the wait and takes effect.
    """
    return ledger.pending and not (entry.snapshot and entry.after_version == ledger.written)


def belongs_to_removed_row(ledger: LedgerState, entry: DocumentChanged) -> bool:
    """Rule *removed*: after a producer's deletion, a captured update of a row with a version is of the deleted row."""
    return ledger.removed and not entry.deleted and entry.before_version is not None


def may_be_of_removed_row(ledger: LedgerState, entry: DocumentChanged) -> bool:
    """Rule *removed* for a snapshot row with a version: it is the deleted row, or a row inserted again since."""
    return ledger.removed and entry.snapshot and entry.after_version is not None


def deletion_is_under_way(ledger: LedgerState, entry: DocumentChanged) -> bool:
    """Rule *removed* for a refresh: its row was read before a producer's deletion reached the table."""
    return ledger.removed and entry.done < ledger.written


def wait_is_ended(ledger: LedgerState, entry: DocumentChanged) -> bool:
    """Rule *ends*: a repair ends the wait that it saw. An echo that still arrives is unawaited."""
    return entry.evidence is not None and entry.evidence.ends == ledger.written


def refresh_is_outdated(ledger: LedgerState, entry: DocumentChanged) -> bool:
    """Rule *refresh*: a refresh is a compare-and-set on the captured position read before the row."""
    return entry.position != ledger.legacy_position


def _without_disproved(ledger: LedgerState, entry: DocumentChanged) -> LedgerState:
    """Rule *disproved*: forget recorded positions that are impossible, if they are still those that the repair read."""
    found = entry.evidence
    if found is None:
        return ledger
    return replace(
        ledger,
        legacy_position=() if found.position == ledger.legacy_position else ledger.legacy_position,
        producer_positions=tuple(p for p in ledger.producer_positions if p not in found.producers),
    )


def _advance(positions: tuple[tuple[int, int, int], ...], position: Position) -> tuple[tuple[int, int, int], ...]:
    epoch, partition, offset = position
    return (*(p for p in positions if p[0] != partition), (partition, epoch, offset))
