"""The legacy table as values: its columns and rows, changes to them and their outcome, its mistakes and row counts.

The functions decide what a change leaves to the row. SQL is in `connectors/sql`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Literal

from domain.rollout.phases import PhaseRules
from schemas.content import Content, Scalar
from schemas.documents import DocumentResolved
from schemas.values import Kind


@dataclass(frozen=True, slots=True)
class ColumnDetails:
    """What a column's type alone does not show: the labels of an enumeration, and what capture cannot carry.

    `inexact`: canonical forms that capture also produces for other values. `inexact_snapshot`: in a snapshot no value
    is certain.
    """

    labels: tuple[str, ...] | None = None
    inexact: frozenset[Scalar] = frozenset()
    inexact_snapshot: bool = False


NO_DETAILS: Mapping[str, ColumnDetails] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TableDescription:
    """The table as the database describes it: its columns by use, and the kind of each metadata column.

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
    the row), or None if the change came from the table itself and only the ledger moves. The columns in `omitted` keep
    what the row holds; in a new row they get their defaults. See `keeps_embedding` for an embedding.
    """

    id: str
    version: int
    written: int | None
    content: Content | None = None
    omitted: frozenset[str] = frozenset()


def is_partial(table: TableDescription, omitted: Collection[str]) -> bool:
    """Return whether a change without some columns leaves the document's text, metadata or tenant to the row.

    An omitted embedding does not count: the vector is computed.
    """
    return any(name != table.embedding for name in omitted)


def given_vector(content: Content | None, dimension: int) -> bytes | None:
    """Return the precomputed embedding of a document; one of another length is from another model and not used."""
    given = content.embedding if content else None
    return given if given is not None and len(given) == 4 * dimension else None


def waits_for_row(event: DocumentResolved, table: TableDescription, rules: PhaseRules, dimension: int) -> bool:
    """Return whether the write to Qdrant waits for the row, because only the table has the whole document.

    The refresh after the write to the table brings the row and names the event as its cause. The outcome of that
    refresh is the only outcome of the event in Qdrant; every other event has its own outcome. If the table has no
    column for a vector, no row holds it, so it goes to Qdrant with its event.
    """
    brings_vector = table.embedding is None and given_vector(event.content, dimension) is not None
    return rules.writes_qdrant and is_partial(table, event.omitted) and not brings_vector


def keeps_embedding(table: TableDescription, change: LegacyChange) -> bool:
    """Return whether a row keeps its embedding as long as its text is unchanged; with another text it becomes NULL."""
    return table.embedding is not None and table.embedding in change.omitted


def row_differs(table: TableDescription, change: LegacyChange, row: LegacyRow) -> bool:
    """Return whether a row holds something other than its change brought, or more, in canonical form."""
    sent, held = change.content, row.content
    if sent is None or is_partial(table, change.omitted):
        return True
    return (
        (table.tenant is not None and sent.tenant != held.tenant)
        or any((sent.text.get(name) or None) != (held.text.get(name) or None) for name in table.text)
        or any(sent.metadata.get(name) != held.metadata.get(name) for name in table.metadata)
        or (table.embedding is not None and sent.embedding != held.embedding)
    )


class LegacyVerdict(Enum):
    """The result of the guarded transaction."""

    APPLIED = "applied"
    SUPERSEDED = "superseded"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class LegacyOutcome:
    """`reason`: the database's message if it refused. `unconfirmed`: this refusal is not reported yet.

    `differs`: the row was read back and holds something other than the change brought, or more: Qdrant must follow it.
    """

    verdict: LegacyVerdict
    reason: str | None = None
    unconfirmed: bool = False
    differs: bool = False


class Sql(str):
    """A statement that fixes something in a collection's database; `config check --apply` runs it."""

    __slots__ = ()


class Setting(str):
    """An operator's step: a setting, a command, or a change in the database that crossfade never makes by itself."""

    __slots__ = ()

    @property
    def shown(self) -> str:
        """The text as an SQL comment, because it is printed among statements."""
        return f"-- {self}"


Remedy = Sql | Setting


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake that `config check` found, and its remedy."""

    level: Literal["error", "warning"]
    subject: str
    message: str
    remedy: Remedy | None = None

    @property
    def shown_remedy(self) -> str | None:
        """The remedy as it is printed and reported: settings as an SQL comment."""
        return self.remedy.shown if isinstance(self.remedy, Setting) else self.remedy


@dataclass(frozen=True, slots=True)
class Coverage:
    """The row counts of a table in one snapshot: all rows, rows in some key ranges, and rows whose key makes no id."""

    rows: int
    in_ranges: int
    without_id: int

    @property
    def outside(self) -> int:
        """The number of rows with an id that are in none of the ranges; below 0 if some are in more than one."""
        return self.rows - self.without_id - self.in_ranges
