"""Quarantined collections, as this process and the legacy databases know them. The reasons are decided elsewhere.

The state is a number in each collection's `crossfade_meta`. `follow` notices what another process records there: a
worker that quarantined a collection, or an operator who fixed it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from connectors.errors import CrossfadeError
from connectors.telemetry import Telemetry
from domain.quarantine import Quarantine, Reason
from migration.collection import CollectionPorts
from migration.epochs import databases, found_replaced
from migration.state import CollectionState
from schemas.settings import Collection, Kafka

# The `who` of `Quarantines.away` if the table of a collection cannot be opened in its current layout.
LAYOUT = "layout"
log = logging.getLogger("crossfade.collections")


@dataclass(slots=True)
class Quarantines:
    """The quarantines of a process.

    `collections` is changed in place: a collection that was captured again has a higher source epoch, and one whose
    points are of another model is suspended. `configured` has their settings as they were read. `replaced`
    has the replaced topics that all collections share: no role takes a record until they are adopted.
    """

    collections: MutableMapping[str, CollectionPorts]
    telemetry: Telemetry
    configured: Mapping[str, Collection] = field(default_factory=dict)
    now: dict[str, Quarantine] = field(default_factory=dict)
    kafka: Kafka = field(default_factory=Kafka)
    _away: dict[str, set[str]] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)

    def of(self, name: str) -> Quarantine | None:
        """Return the quarantine of a collection, None if it is active."""
        return self.now.get(name)

    def known(self, quarantine: Quarantine) -> None:
        """Note a quarantine that must not be recorded: it is found again at every start until its cause is fixed."""
        if self.now.get(quarantine.collection) != quarantine:
            self._enter(quarantine)

    async def quarantine(self, name: str, reason: Reason, detail: str) -> None:
        """Quarantine a collection in this process and durably. Returns once it is recorded. Raises StoreUnavailable."""
        found, had = Quarantine(name, reason, detail), self.now.get(name)
        if had is not None and not _gives_way(had, found):
            return  # the first reason is the one to fix
        if not found.passes and name in self.collections:
            if found.of_capture and await self._was_recaptured(name):
                return  # the finding is about an epoch that another process has left; `follow` will notice that
            # Recorded first: a quarantine known only here would be forgotten with this process. For a collection that
            # is being opened, it is recorded at the next check.
            await CollectionState(self.collections[name].ledger, name).set_reason(reason)
        self._enter(found)

    async def _was_recaptured(self, name: str) -> bool:
        """Say whether a collection has a new source epoch. It is recorded before the old connector is removed."""
        ports = self.collections[name]
        epoch = await CollectionState(ports.ledger, name).source_epoch()
        return epoch is not None and ports.capture is not None and epoch != ports.capture.epoch

    def away(self, name: str, who: str, detail: str) -> None:
        """Note that `who` found a store of a collection unusable. This passes when no `who` finds it unusable."""
        self._away.setdefault(name, set()).add(who)
        had, found = self.now.get(name), Quarantine(name, Reason.UNREACHABLE, detail)
        if had is None or (had.reason is not found.reason and _gives_way(had, found)):
            self._enter(found)

    def back(self, name: str, who: str) -> None:
        """Withdraw what `away` noted for the same `who`."""
        left = self._away.get(name, set())
        left.discard(who)
        had = self.now.get(name)
        if not left and had is not None and had.reason is Reason.UNREACHABLE:
            self._leave(name)

    def holds_capture(self, name: str) -> bool:
        """Say whether captured changes wait because the columns of their table are not known now."""
        return LAYOUT in self._away.get(name, ())

    def noted_by(self, who: str) -> set[str]:
        """Return the collections that `who` noted as away."""
        return {name for name, those in self._away.items() if who in those}

    def release(self, name: str) -> None:
        """End a passing quarantine whose cause is gone. Any other quarantine is left to what is recorded."""
        if (found := self.now.get(name)) is not None and found.passes:
            self._leave(name)

    async def follow(self) -> bool:
        """Read what is recorded; say whether anything changed. A database that does not answer changes nothing."""
        # Concurrently: an unreachable database takes its whole time limit.
        changed = any(await asyncio.gather(*(self._follow_one(name) for name in list(self.collections))))
        return await self._follow_topics() or changed

    async def _follow_topics(self) -> bool:
        """Read which topics were replaced. Does not wait for an unreachable database: it is adopted when it is back."""
        found: set[str] = set()
        answered = False
        for ports, *_ in databases(self.collections):
            with suppress(CrossfadeError):
                found |= await found_replaced(ports.ledger)
                answered = True
        if not answered:
            return False
        changed, self.replaced = found != self.replaced, found
        return changed

    async def _follow_one(self, name: str) -> bool:
        ports = self.collections[name]
        try:
            state = CollectionState(ports.ledger, name)
            reason, epoch = await state.reason(), await state.source_epoch()
            capture = ports.capture
            if epoch is not None and (capture is None or capture.epoch != epoch):
                capture = await state.capture(self.kafka, ports.settings)
        except CrossfadeError:
            return False
        changed = capture != ports.capture
        if changed:
            self.collections[name] = replace(self.collections[name], capture=capture)
        return self._follow(name, reason) or changed

    def _follow(self, name: str, reason: Reason | None) -> bool:
        had = self.now.get(name)
        if had is not None and (had.reason is reason or (had.passes and reason is None)):
            return False
        if reason is not None:
            self._enter(Quarantine(name, reason))
        elif had is not None:
            self._leave(name)
        return reason is not None or had is not None

    def _enter(self, quarantine: Quarantine) -> None:
        self.now[quarantine.collection] = quarantine
        self._suspend(quarantine.collection)
        self.telemetry.stopped(quarantine.collection, quarantine.reason.name.lower())
        log.error(
            "collection %s is quarantined: %s. Remedy: %s", quarantine.collection, quarantine.message, quarantine.remedy
        )

    def _leave(self, name: str) -> None:
        del self.now[name]
        self.telemetry.stopped(name, None)
        self._suspend(name)
        log.warning("collection %s is active again", name)

    def _suspend(self, name: str) -> None:
        ports, quarantine = self.collections.get(name), self.now.get(name)
        if ports is not None:
            self.collections[name] = replace(ports, suspended=quarantine is not None and not quarantine.writes_qdrant)


def _gives_way(had: Quarantine, found: Quarantine) -> bool:
    """Say whether a quarantine replaces an earlier one.

    A quarantine that needs a command replaces one that passes by itself, or one in which captured changes are taken.
    """
    return not found.passes and (had.passes or had.captures)
