"""Watches whether a Qdrant collection is the one that was written: not deleted, recreated, restored, or swapped.

If it is not, the collection is quarantined, created again if it is missing, and still written. The table answers
queries until `crossfade recapture` has compared every document.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from connectors.errors import CollectionMissing, CrossfadeError, Misconfigured, TransientError
from connectors.vector_ports import Storage
from domain.quarantine import Reason
from domain.witnesses import Witness, chosen, missing
from migration.collection import CollectionPorts
from migration.quarantine import Quarantines
from migration.witnesses import Written, forgotten_witnesses, record_witnesses, recorded_witnesses, sample, versions

log = logging.getLogger("crossfade.points")
WATCH_S = 2.0
_CONFIRM_S = 1.0
_SAMPLE_S = 30.0


@dataclass(slots=True)
class _Known:
    """The witnesses of a collection, those recorded last, and when the next sample is due."""

    witnesses: tuple[Witness, ...]
    recorded: tuple[Witness, ...]
    sample_due_s: float = 0.0


@dataclass(slots=True)
class PointWatch:
    """Compares and records the witnesses of the collections that are not quarantined."""

    quarantines: Quarantines
    written: Written
    known: dict[str, _Known] = field(default_factory=dict)

    async def look(self) -> bool:
        """Check every collection; say whether one was quarantined. A store that does not answer changes nothing."""
        found = False
        for name, ports in list(self.quarantines.collections.items()):
            if self.quarantines.of(name) is not None:
                # It is compared with the table before it is active again, and has other witnesses from then on.
                self.known.pop(name, None)
                self.written.last.pop(name, None)
            elif ports.rules.writes_qdrant:
                try:
                    found = await self._look(ports) or found
                except CrossfadeError as error:
                    log.warning("the points of %s are not compared now: %s", name, error)
        return found

    async def _look(self, ports: CollectionPorts) -> bool:
        known = self.known.get(ports.name)
        if known is None:
            witnesses = await recorded_witnesses(ports.ledger, ports.name)
            known = self.known[ports.name] = _Known(witnesses, witnesses)
        # Taken before the comparison, which is not expected to see points that are written later.
        recent = tuple(self.written.last.get(ports.name, ()))
        why = await self._wrong(ports, known)
        if why:
            await asyncio.sleep(_CONFIRM_S)
            why = await self._wrong(ports, known)
        if why:
            await self._quarantine(ports, why)
            return True
        await self._renew(ports, known, recent)
        return False

    async def _wrong(self, ports: CollectionPorts, known: _Known) -> str:
        try:
            ids = b"".join(one.point for one in known.witnesses)
            held: Mapping[bytes, int] = await versions(ports.vectors, ports.name, ids) if ids else {}
            if not ids:
                await ports.vectors.scan_ids(ports.name, None, 1)
        except CollectionMissing as error:
            return str(error)
        why = missing(known.witnesses, held)
        if why:
            removed = await forgotten_witnesses(ports.ledger, ports.name)
            known.witnesses = tuple(one for one in known.witnesses if one not in removed)
            why = missing(known.witnesses, held)
        return why

    async def _quarantine(self, ports: CollectionPorts, why: str) -> None:
        await self.quarantines.quarantine(ports.name, Reason.POINTS_REPLACED, why)
        settings = ports.settings
        try:
            # Writes to the collection wait until it exists. The indexes are those that searches need.
            storage = Storage(settings.quantization, settings.on_disk)
            metadata = ports.table.description.metadata
            await ports.vectors.prepare(ports.name, ports.embedder.dimension, metadata, storage)
        except Misconfigured as error:
            await self.quarantines.quarantine(ports.name, Reason.MODEL, str(error))

    async def _renew(self, ports: CollectionPorts, known: _Known, recent: tuple[Witness, ...]) -> None:
        sampled = known.witnesses
        if time.monotonic() >= known.sample_due_s:
            sampled = await sample(ports.vectors, ports.name)
            known.sample_due_s = time.monotonic() + _SAMPLE_S
        fresh = chosen((*known.witnesses, *recent), sampled)
        if fresh != known.recorded:
            await record_witnesses(ports.ledger, ports.name, fresh)
            known.recorded = fresh
        known.witnesses = fresh


async def compare_points(quarantines: Quarantines) -> None:
    """Compare before the first record is taken. If Qdrant does not answer, it is compared once it does."""
    await PointWatch(quarantines, Written()).look()


async def watch_points(quarantines: Quarantines, written: Written, changed: Callable[[], None]) -> None:
    """Watch for as long as the worker runs."""
    watch = PointWatch(quarantines, written)
    while True:
        try:
            if await watch.look():
                changed()
        except TransientError as error:
            log.warning("the points are not watched now: %s", error)
        await asyncio.sleep(WATCH_S)
