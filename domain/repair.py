"""What a repair can prove about a document's ledger row: values that no history can produce.

The row is read first and the ends after it, so crossfade never wrote a value beyond an end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from domain.ledger import LedgerRow
from schemas.documents import Evidence, Position
from schemas.keys import FIRST_EPOCH


@dataclass(frozen=True, slots=True)
class Ends:
    """The ends of everything in which a ledger row has positions.

    `newest` is the version of the last entry in the document's partition of the log, `position` the end of the
    database's log (empty: unknown), `submitted` the end offset of each partition of the submitted topic, whose epoch is
    `producer_epoch`.
    """

    newest: int
    position: Position
    submitted: Mapping[int, int]
    producer_epoch: int = FIRST_EPOCH


def impossible_versions(row: LedgerRow, ends: Ends, row_version: int | None = None) -> dict[str, tuple[int, int]]:
    """Return, by column, each impossible version and its replacement; other columns are not touched.

    `row_version` is the version in the table's row: the legacy writer came at least that far.
    """
    reached = row_version if row_version is not None and 0 < row_version <= ends.newest else 0
    columns = {
        "version": (row.state.version, 0),
        "legacy_version": (row.legacy_version, reached),
        "vector_version": (row.vector_version, 0),
    }
    return {name: (held, instead) for name, (held, instead) in columns.items() if held > ends.newest}


def evidence_of(row: LedgerRow, ends: Ends, waited: int | None = None) -> Evidence | None:
    """Return the evidence for a refresh of the row, None if there is none.

    `waited` is the producer's version whose wait is ended: it was seen before everything in flight drained.
    """
    state = row.state
    beyond = bool(ends.position) and state.legacy_position > ends.position
    evidence = Evidence(
        ends=waited if waited == state.written else None,
        position=state.legacy_position if beyond else (),
        producers=tuple(p for p in state.producer_positions if _is_beyond(p, ends)),
    )
    return None if evidence == Evidence() else evidence


def _is_beyond(position: tuple[int, int, int], ends: Ends) -> bool:
    partition, epoch, offset = position
    return epoch > ends.producer_epoch or (epoch == ends.producer_epoch and offset >= ends.submitted.get(partition, 0))
