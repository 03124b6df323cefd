"""Converts a ledger row, as both databases store it, into a value. No statement is here.

Positions are JSON text and are compared in Python only. A position that cannot be parsed counts as no position: the
changes that were skipped because of it are folded again, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from domain.fold import LedgerState
from domain.ledger import LedgerRow

LEDGER_COLUMNS = (
    "document_id",
    "version",
    "written",
    "pending",
    "removed",
    "refresh",
    "legacy_position",
    "producer_positions",
    "legacy_version",
    "refused_version",
    "vector_version",
    "content_hash",
    "chunk_count",
    "embedding_model",
)


VERSION_COLUMNS = ("version", "legacy_version", "vector_version")
"""The columns that `Ledger.put_back` may set."""
_PRODUCER_PARTS = 3


def position_text(position: Sequence[Any]) -> str:
    """Return a position, or several positions, as JSON text."""
    return orjson.dumps(position).decode()


def ledger_row(values: Sequence[Any]) -> LedgerRow:
    """Return the ledger row for values in the order of `LEDGER_COLUMNS`. Numbers may be given as text."""
    flags = [bool(int(value)) for value in values[3:6]]
    state = LedgerState(
        version=int(values[1]),
        written=int(values[2]),
        pending=flags[0],
        removed=flags[1],
        refresh=flags[2],
        legacy_position=_numbers(_parsed(values[6])),
        producer_positions=tuple(
            (one[0], one[1], one[2]) for one in map(_numbers, _parsed(values[7])) if len(one) == _PRODUCER_PARTS
        ),
    )
    return LedgerRow(
        state=state,
        legacy_version=int(values[8]),
        refused_version=int(values[9]),
        vector_version=int(values[10]),
        content_hash=values[11],
        chunk_count=None if values[12] is None else int(values[12]),
        embedding_model=values[13],
    )


def _parsed(text: Any) -> list[Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return []
    return value if isinstance(value, list) else []


def _numbers(value: Any) -> tuple[int, ...]:
    """Return a list of integers as a tuple, and anything else as an empty tuple."""
    whole = isinstance(value, list) and all(type(part) is int for part in value)
    return tuple(value) if whole else ()
