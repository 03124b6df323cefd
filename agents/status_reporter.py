"""Reports changes in the state of backends, roles and collections: as a metric at once, as an event soon after.

Nothing waits for it: if the brokers do not answer, the newest changes are kept, up to a bound, and the rest is
dropped. The states are decided elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agents.runner import RoleHealth
from connectors.errors import CrossfadeError
from connectors.ports import Bus
from domain.quarantine import Quarantine
from migration.context import HandlerContext
from schemas.records import Outgoing
from schemas.service import Scope, ServiceChanged, State
from topics.catalogue import SERVICE

log = logging.getLogger("crossfade.agents")
_KEPT = 1000
LOOK_S = 1.0
Key = tuple[Scope, str, str]


@dataclass(slots=True)
class StatusReporter:
    """The last reported state of each backend, role and collection of this worker; at first everything is closed."""

    bus: Bus
    ctx: HandlerContext
    last: dict[Key, State] = field(default_factory=dict)
    waiting: deque[Outgoing] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def report(self, scope: Scope, name: str, state: State, *, collection: str = "", reason: str = "") -> None:
        """Report a state, unless it is the one that was reported last."""
        key = (scope, name, collection)
        if self.last.get(key, "closed") == state:
            return
        self.last[key] = state
        self.ctx.telemetry.service_state(scope, name, collection, state)
        log.warning("%s %s: %s %s", scope, " of ".join(part for part in (name, collection) if part), state, reason)
        changed = ServiceChanged(
            scope=scope, name=name, collection=collection or None, state=state, reason=reason[:1000]
        )
        place = f"{socket.gethostname()}/{os.getpid()}"
        event_id = f"{place}/{'/'.join(key)}/{state}@{self.ctx.clock()}"
        subject = "/".join(part for part in (scope, collection, name) if part)
        self.waiting.append(
            self.ctx.emit(changed, SERVICE, subject, event_id=event_id, source=f"crossfade/worker/{place}")
        )

    async def look(self, roles: Iterable[RoleHealth], quarantines: Mapping[str, Quarantine]) -> None:
        """Report, for as long as the worker runs, which roles wait and which collections are quarantined."""
        reported: set[str] = set()
        while True:
            for role in roles:
                self.report("role", role.role, "open" if role.waiting_for else "closed", reason=role.waiting_for or "")
            for name in reported - quarantines.keys():
                self.report("collection", name, "closed")
            for name, quarantine in quarantines.items():
                self.report("collection", name, "open", reason=quarantine.message)
            reported = set(quarantines)
            await self.publish()
            await asyncio.sleep(LOOK_S)

    async def publish(self) -> None:
        """Publish the waiting records; after an error they stay waiting."""
        records = list(self.waiting)
        if not records:
            return
        try:
            await self.bus.publish(records)
        except CrossfadeError as error:
            log.warning("changes of state are not published now: %s", error)
            return
        for record in records:
            if self.waiting and self.waiting[0] is record:
                self.waiting.popleft()
