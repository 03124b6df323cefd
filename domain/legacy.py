"""Rows of the legacy table and changes to them, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from domain.values import Kind
from schemas.content import Content, Scalar


@dataclass(frozen=True, slots=True)
class ColumnDetails:
    """What a metadata column's type alone does not say: the labels of an enumeration, and what capture cannot carry.

    `inexact`: canonical forms that capture also gives for other values. `inexact_snapshot`: a snapshot is not sure of
    any value.
    """

    labels: tuple[str, ...] | None = None
    inexact: frozenset[Scalar] = frozenset()
    inexact_snapshot: bool = False


NO_DETAILS: Mapping[str, ColumnDetails] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TableDescription:
    """The table as the database describes it: names of its columns by use, and the kind of each metadata column.

    `place` is its full name, `schema.table` (in MariaDB `database.table`).
    """

    key: tuple[str, ...]
    text: tuple[str, ...]
    metadata: dict[str, Kind]
    tenant: str | None
    embedding: str | None
    details: Mapping[str, ColumnDetails] = field(default_factory=lambda: NO_DETAILS)
    place: str = ""


@dataclass(frozen=True, slots=True)
class LegacyRow:
    """A row as read from the table; `version` is its `crossfade_version`."""

    id: str
    version: int | None
    content: Content


@dataclass(frozen=True, slots=True)
class LegacyChange:
    """A resolved version for the legacy writer.

    `version` is what the ledger moves to. `written` is the producer's version to put into the row (content None deletes
    the row), or None where the change came from the table itself and only the ledger moves.
    """

    id: str
    version: int
    written: int | None
    content: Content | None = None


class LegacyVerdict(Enum):
    """What the guarded transaction came to."""

    APPLIED = "applied"
    SUPERSEDED = "superseded"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class LegacyOutcome:
    """`reason`: the database's message where it refused. `unconfirmed`: this refusal is still to be told."""

    verdict: LegacyVerdict
    reason: str | None = None
    unconfirmed: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake that `config check` found: what is wrong, and the statement or setting that mends it."""

    level: str
    subject: str
    message: str
    mend: str | None = None


@dataclass(frozen=True, slots=True)
class Coverage:
    """A table in one snapshot: all of its rows, those in some ranges of its key, and those whose key makes no id."""

    rows: int
    in_ranges: int
    without_id: int

    @property
    def outside(self) -> int:
        """Rows that are in none of the ranges although they have an id; below 0 where some are in more than one."""
        return self.rows - self.without_id - self.in_ranges
