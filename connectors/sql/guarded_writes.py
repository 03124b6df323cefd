"""Writes a batch of changes to a table, for both databases: all at once, and by halves if the database refuses.

No statement is executed here, and none is built except those of `writes_nothing`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from connectors.errors import Misconfigured, Raised, Refused, StoreUnavailable
from connectors.sql.layout import Layout
from domain.legacy import (
    LegacyChange,
    LegacyOutcome,
    LegacyRow,
    LegacyVerdict,
    TableDescription,
    is_partial,
    keeps_embedding,
    row_differs,
)

APPLIED = LegacyOutcome(LegacyVerdict.APPLIED)
DIFFERS = LegacyOutcome(LegacyVerdict.APPLIED, differs=True)
NOT_SEEN = (
    "after the write there is no row of this id with this version: the type of the key, a trigger, a rule or a policy "
    "changes or drops it, or a key or unique value that counts as the same belongs to another row"
)
# Pauses in seconds before each retry of a change for which a trigger raised an error that may pass. After the last
# retry, the change is refused.
RAISED_AGAIN_S = (0.1, 0.5, 2.0)
OTHERS_TOO = "other rows have an equal key: the type of the key's column was changed"
NOT_GONE = "after the deletion the row is still there: a trigger, a rule or a policy keeps it"


class GuardedWriter(Protocol):
    """The two transactions of an adapter, and two checks of its table."""

    async def write(self, changes: Sequence[LegacyChange]) -> dict[str, LegacyOutcome]:
        """Write changes behind the ledger guard in one transaction.

        Raises Refused, Misconfigured or Raised, with nothing written.
        """
        ...

    async def usable(self) -> None:
        """Raise Misconfigured if the table cannot be written at all, whatever the document."""
        ...

    async def altered(self) -> str | None:
        """Return how the table's columns changed since it was opened, None if they did not."""
        ...

    async def refuse(self, change: LegacyChange, reason: str) -> LegacyOutcome:
        """Advance the ledger past a refused change and record it in `refused_version`, in one transaction."""
        ...


async def require_unaltered(table: GuardedWriter) -> None:
    """Raise StoreUnavailable if the columns are not those that a table was opened with.

    Call this before a row counts as missing or a document as refused: the current columns may hold it.
    """
    altered = await table.altered()
    if altered is not None:
        raise StoreUnavailable(f"{altered}: the table is opened again")


class Shape(NamedTuple):
    """What changes must have in common for one statement: the columns, and what happens to an embedding."""

    columns: tuple[str, ...]
    partial: bool
    keeps_embedding: bool


def by_shape(layout: Layout, changes: Sequence[LegacyChange]) -> dict[Shape, list[LegacyChange]]:
    """Return the upserts, grouped by shape."""
    found: dict[Shape, list[LegacyChange]] = {}
    table = layout.description
    for change in changes:
        columns = layout.written_columns(change)
        shape = Shape(columns, is_partial(table, change.omitted), keeps_embedding(table, change))
        found.setdefault(shape, []).append(change)
    return found


def seen(
    table: TableDescription, changes: Sequence[LegacyChange], rows: Mapping[str, LegacyRow]
) -> dict[str, LegacyOutcome]:
    """Return the outcomes of upserts whose rows were read back. Raises Refused if a row is not there as written."""
    outcomes: dict[str, LegacyOutcome] = {}
    for change in changes:
        row = rows.get(change.id)
        if row is None or row.version != change.written:
            raise Refused(NOT_SEEN)
        outcomes[change.id] = DIFFERS if row_differs(table, change, row) else APPLIED
    return outcomes


def writes_nothing(table: str, columns: Sequence[str]) -> tuple[str, str, str]:
    """Return statements that write no row but need what every write needs: the table, its columns, the privileges."""
    listed = ", ".join(columns)
    return (
        f"INSERT INTO {table} ({listed}) SELECT {listed} FROM {table} WHERE 1 = 0",  # noqa: S608 - quoted identifiers
        f"UPDATE {table} SET {', '.join(f'{one} = {one}' for one in columns)} WHERE 1 = 0",  # noqa: S608
        f"DELETE FROM {table} WHERE 1 = 0",  # noqa: S608
    )


async def apply_changes(writer: GuardedWriter, layout: Layout, changes: Sequence[LegacyChange]) -> list[LegacyOutcome]:
    """Return the outcome of each change. Documents are locked in the order of their ids, so batches never deadlock.

    Raises StoreUnavailable if a change would be refused but the table's columns are not those that it was opened with:
    the current columns may accept the change.
    """
    outcomes: dict[str, LegacyOutcome] = {}
    sound: list[LegacyChange] = []
    for change in sorted(changes, key=lambda one: one.id):
        reason = layout.refusal(change)
        if reason is None:
            sound.append(change)
        else:
            outcomes[change.id] = await _refused(writer, change, reason)
    raised: list[LegacyChange] = []
    await _by_halves(writer, sound, outcomes, raised)
    await _again(writer, raised, outcomes)
    return [outcomes[change.id] for change in changes]


async def _refused(writer: GuardedWriter, change: LegacyChange, reason: str) -> LegacyOutcome:
    await require_unaltered(writer)
    return await writer.refuse(change, reason)


async def _by_halves(
    writer: GuardedWriter,
    changes: Sequence[LegacyChange],
    outcomes: dict[str, LegacyOutcome],
    raised: list[LegacyChange],
) -> None:
    """Halve a batch until each refused document is alone: about 2 log2(n) transactions for one of n.

    A Misconfigured error that concerns only one document (for example, a trigger's function is missing) refuses that
    document like any other error. A change for which a trigger raised an error that may pass is added to `raised`.
    """
    if not changes:
        return
    try:
        outcomes.update(await writer.write(changes))
    except (Refused, Misconfigured, Raised) as error:
        if len(changes) > 1:
            middle = len(changes) // 2
            await _by_halves(writer, changes[:middle], outcomes, raised)
            await _by_halves(writer, changes[middle:], outcomes, raised)
        elif isinstance(error, Raised):
            raised.append(changes[0])
        else:
            if isinstance(error, Misconfigured):
                await writer.usable()
            outcomes[changes[0].id] = await _refused(writer, changes[0], str(error))


async def _again(writer: GuardedWriter, changes: Sequence[LegacyChange], outcomes: dict[str, LegacyOutcome]) -> None:
    """Retry the changes for which triggers raised an error that may pass. Refuse those that still fail at the end.

    All changes share the pauses.
    """
    for last, pause_s in enumerate(RAISED_AGAIN_S, 1 - len(RAISED_AGAIN_S)):
        if not changes:
            return
        await asyncio.sleep(pause_s)
        left: list[LegacyChange] = []
        for change in changes:
            try:
                outcomes.update(await writer.write([change]))
            except (Refused, Misconfigured, Raised) as error:
                if last < 0:
                    left.append(change)
                else:
                    outcomes[change.id] = await _refused(writer, change, str(error))
        changes = left
