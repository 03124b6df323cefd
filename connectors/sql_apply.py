"""How a batch of changes is brought into a table whatever the database: all at once, and by halves where it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from connectors.errors import Misconfigured, Refused
from connectors.sql_layout import Layout
from domain.legacy import LegacyChange, LegacyOutcome, LegacyVerdict

APPLIED = LegacyOutcome(LegacyVerdict.APPLIED)


class GuardedWriter(Protocol):
    """The two transactions of an adapter."""

    async def write(self, changes: Sequence[LegacyChange]) -> dict[str, LegacyOutcome]:
        """Write changes behind the ledger guard in one transaction. Raises Refused, Misconfigured with nothing done."""
        ...

    async def refuse(self, change: LegacyChange, reason: str) -> LegacyOutcome:
        """Move the ledger over a refused change and note it in `refused_version`, in one transaction."""
        ...


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
    except (Refused, Misconfigured) as error:
        if len(changes) == 1:
            outcomes[changes[0].id] = await writer.refuse(changes[0], str(error))
            return
        middle = len(changes) // 2
        await _by_halves(writer, changes[:middle], outcomes)
        await _by_halves(writer, changes[middle:], outcomes)
