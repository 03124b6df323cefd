"""How a batch of changes is brought into a table whatever the database: all at once, and by halves where it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from connectors.errors import Misconfigured, Raised, Refused
from connectors.sql_layout import Layout
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
# What a trigger raises under a state that may pass is tried again after these seconds, and refused then.
RAISED_AGAIN_S = (0.1, 0.5, 2.0)
NOT_GONE = "after the deletion the row is still there: a trigger, a rule or a policy keeps it"


class GuardedWriter(Protocol):
    """The two transactions of an adapter."""

    async def write(self, changes: Sequence[LegacyChange]) -> dict[str, LegacyOutcome]:
        """Write changes behind the ledger guard in one transaction.

        Raises Refused, Misconfigured, Raised with nothing done.
        """
        ...

    async def refuse(self, change: LegacyChange, reason: str) -> LegacyOutcome:
        """Move the ledger over a refused change and note it in `refused_version`, in one transaction."""
        ...


class Shape(NamedTuple):
    """What changes have in common that one statement can write: their columns, and what becomes of an embedding."""

    columns: tuple[str, ...]
    partial: bool
    keeps_embedding: bool


def by_shape(layout: Layout, changes: Sequence[LegacyChange]) -> dict[Shape, list[LegacyChange]]:
    """Return the upserts by shape."""
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
    """Return the outcomes of upserts whose rows were read back. Raises Refused where one is not there as written."""
    outcomes: dict[str, LegacyOutcome] = {}
    for change in changes:
        row = rows.get(change.id)
        if row is None or row.version != change.written:
            raise Refused(NOT_SEEN)
        outcomes[change.id] = DIFFERS if row_differs(table, change, row) else APPLIED
    return outcomes


async def apply_changes(writer: GuardedWriter, layout: Layout, changes: Sequence[LegacyChange]) -> list[LegacyOutcome]:
    """Return the outcome of each change. Documents are locked in the order of their ids, so batches never deadlock."""
    outcomes: dict[str, LegacyOutcome] = {}
    sound: list[LegacyChange] = []
    for change in sorted(changes, key=lambda one: one.id):
        reason = layout.refusal(change)
        if reason is None:
            sound.append(change)
        else:
            outcomes[change.id] = await writer.refuse(change, reason)
    await _by_halves(writer, sound, outcomes)
    return [outcomes[change.id] for change in changes]


async def _by_halves(
    writer: GuardedWriter, changes: Sequence[LegacyChange], outcomes: dict[str, LegacyOutcome]
) -> None:
    """Halve until the refused documents stand alone: about 2 log2(n) transactions for one of n.

    What only one document finds misconfigured (a trigger's function is missing, say) is refused like any other.
    """
    if not changes:
        return
    try:
        outcomes.update(await writer.write(changes))
    except (Refused, Misconfigured, Raised) as error:
        if len(changes) > 1:
            middle = len(changes) // 2
            await _by_halves(writer, changes[:middle], outcomes)
            await _by_halves(writer, changes[middle:], outcomes)
        elif isinstance(error, Raised):
            outcomes[changes[0].id] = await _again(writer, changes[0])
        else:
            outcomes[changes[0].id] = await writer.refuse(changes[0], str(error))


async def _again(writer: GuardedWriter, change: LegacyChange) -> LegacyOutcome:
    """Try a change again that a trigger objected to in a way that may pass; refuse it where that stays."""
    reason = ""
    for pause_s in RAISED_AGAIN_S:
        await asyncio.sleep(pause_s)
        try:
            return (await writer.write([change]))[change.id]
        except (Refused, Misconfigured, Raised) as error:
            reason = str(error)
    return await writer.refuse(change, reason)
