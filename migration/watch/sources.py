"""Watches that a collection's database and table are the recorded ones, and records them when capture begins.

`domain.sources` decides what a change of them means. The count that reveals a restored backup is advanced in the
database first and then published to Kafka, so Kafka's count is never ahead of the database that it came from.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import orjson

from connectors.addresses import brokers_of
from connectors.errors import CrossfadeError, Misconfigured
from connectors.kafka.connect import in_snapshot
from connectors.kafka.reader import read_topic
from connectors.ports import Bus, Ledger
from connectors.sql.databases import source_facts
from domain.positions import binlog_number
from domain.sources import Outside, SourceFacts, SourceIdentity, gtid_numbers, source_change
from migration.collection import CollectionPorts
from migration.quarantine import Quarantines
from schemas.records import Outgoing
from schemas.settings import Kafka
from topics.provisioning import SOURCES_SEEN

# The names of the records of each collection, as `NAME.collection`.
IDENTITY = "source"
COUNT = "source_count"
# How often the count advances. It distinguishes a database from a backup of it that is older than this, whatever was
# written to its log since.
SEEN_EVERY_S = 4.0
# The delay before the recheck of a table that the publication does not contain, or of a connector without a replication
# position: a statement may be putting the table back, or Kafka Connect may be reading its offsets.
CONFIRM_S = 2.0
# The `who` of `Quarantines.away` if the database of a collection, or its records, cannot be read.
LOOK = "look"


class CapturedTogether(Protocol):
    """The collections of one connector; see `migration.capture.connectors.Group`."""

    @property
    def kind(self) -> str:
        """The kind of the database: postgres or mariadb."""
        ...

    @property
    def dsn(self) -> str:
        """The address of the database."""
        ...

    @property
    def connector(self) -> str:
        """The name of the connector."""
        ...

    @property
    def slot(self) -> str:
        """The name of the publication."""
        ...

    @property
    def members(self) -> tuple[CollectionPorts, ...]:
        """The collections."""
        ...


class ReadsOffsets(Protocol):
    """What this module needs of Kafka Connect."""

    async def committed(self, name: str) -> dict[str, Any] | None:
        """Return how far a connector has read, None if there is no such connector."""
        ...


async def published_counts(kafka: Kafka) -> dict[str, int]:
    """Return the highest published count of each collection. Raises StoreUnavailable."""
    highest: dict[str, int] = {}
    try:
        async for record in read_topic(brokers_of(kafka), SOURCES_SEEN):
            if record.key is not None and record.value is not None:
                name = record.key.decode("utf-8", "replace")
                highest[name] = max(highest.get(name, 0), _count_of(record.value))
    except Misconfigured:  # there is no topic yet: nothing was ever published
        return {}
    return highest


def _count_of(value: bytes) -> int:
    try:
        return int(orjson.loads(value)["count"])
    except (KeyError, TypeError, ValueError):
        return 0


async def facts_of(
    group: CapturedTogether, ports: CollectionPorts, recorded: SourceIdentity | None = None
) -> SourceFacts:
    """Return what identifies a collection's database and table now. Raises Misconfigured, StoreUnavailable."""
    if ports.capture is None:
        raise Misconfigured("the collection was never captured")
    return await source_facts(group.kind, group.dsn, ports.capture.table, group.slot, recorded)


async def record_source(group: CapturedTogether, ports: CollectionPorts, published: Mapping[str, int]) -> None:
    """Record the current database and table for a capture that begins.

    Its count continues above the `published` one, even if a restored backup set it back.
    """
    found = _identity(group.connector, await facts_of(group, ports))
    await ports.ledger.raise_to(f"{COUNT}.{ports.name}", published.get(ports.name, 0))
    await ports.ledger.set_identity(f"{IDENTITY}.{ports.name}", found.encode())


def _identity(capture: str, facts: SourceFacts) -> SourceIdentity:
    if facts.table is None:
        raise Misconfigured("the table is missing")
    return SourceIdentity(capture, facts.server, facts.table, facts.end, facts.gtids, facts.place)


@dataclass(slots=True)
class SourceWatch:
    """What this process last saw of each collection's source. For `published`, see `published_counts`."""

    bus: Bus
    offsets: ReadsOffsets
    published: dict[str, int] = field(default_factory=dict)
    seen: dict[str, SourceIdentity] = field(default_factory=dict)
    due_s: dict[str, float] = field(default_factory=dict)

    async def look(self, group: CapturedTogether, quarantines: Quarantines) -> list[str]:
        """Quarantine the collections of a group whose database or table was replaced; record the others.

        Each collection is checked on its own. One whose database or records cannot be read is noted as away for as long
        as that lasts, and is not in the returned list. Raises ConnectError if Kafka Connect cannot be asked.
        """
        members = [
            p
            for p in group.members
            if (quarantine := quarantines.of(p.name)) is None or quarantine.captures or quarantine.passes
        ]
        if not members:
            return []
        # Read before the end of the database's log, which is never behind it.
        read = _read(group.kind, await self.offsets.committed(group.connector))
        seen = []
        for ports in members:
            try:
                await self._look_at(group, ports, read, quarantines)
            except CrossfadeError as error:
                quarantines.away(ports.name, LOOK, str(error))
            else:
                quarantines.back(ports.name, LOOK)
                seen.append(ports.name)
        return seen

    async def _look_at(
        self, group: CapturedTogether, ports: CollectionPorts, read: Outside, quarantines: Quarantines
    ) -> None:
        name = ports.name
        recorded = await self._recorded(group.connector, ports)
        facts = await facts_of(group, ports, recorded)
        if recorded is not None and facts.published is False and facts.table == recorded.table:
            await asyncio.sleep(CONFIRM_S)
            facts = await facts_of(group, ports, recorded)
        count = await ports.ledger.get_meta(f"{COUNT}.{name}") or 0
        known = recorded or SourceIdentity(group.connector, {}, facts.table or "", ())
        if recorded is None:
            facts = replace(facts, published=None)  # the capture is only beginning: its connector is not created yet
        begun = read.begun
        if known.begun and begun is False:
            await asyncio.sleep(CONFIRM_S)
            begun = _begun(await self.offsets.committed(group.connector))
        outside = replace(read, count=self.published.get(name, 0), begun=begun)
        change = source_change(known, facts, outside, count)
        if change is not None:
            await quarantines.quarantine(name, change.reason, change.detail)
            return
        now = replace(_identity(group.connector, facts), begun=known.begun or begun is True)
        self.seen[name] = now
        news = recorded is None or (recorded.table, recorded.begun) != (now.table, now.begun)
        if news or time.monotonic() >= self.due_s.get(name, 0.0):
            await self._note(ports.ledger, self.seen[name], name)

    async def _recorded(self, capture: str, ports: CollectionPorts) -> SourceIdentity | None:
        """Return what was last seen or recorded of a collection for this capture, None if there is nothing."""
        seen = self.seen.get(ports.name)
        if seen is not None and seen.capture == capture:
            return seen
        text = await ports.ledger.identity(f"{IDENTITY}.{ports.name}")
        try:
            found = SourceIdentity.decode(text) if text is not None else None
        except ValueError:
            return None
        return found if found is not None and found.capture == capture else None

    async def _note(self, ledger: Ledger, identity: SourceIdentity, name: str) -> None:
        await ledger.set_identity(f"{IDENTITY}.{name}", identity.encode())
        count = await ledger.advance(f"{COUNT}.{name}")
        value = orjson.dumps({"count": count})
        await self.bus.publish([Outgoing(SOURCES_SEEN, name.encode(), value)])
        self.published[name] = count
        self.due_s[name] = time.monotonic() + SEEN_EVERY_S


def _begun(offset: Mapping[str, Any] | None) -> bool | None:
    return None if offset is None else bool(offset) and not in_snapshot(offset)


def _read(kind: str, offset: Mapping[str, Any] | None) -> Outside:
    """Return how far a connector has read, according to the offset that it committed."""
    return replace(_place(kind, offset or {}), begun=_begun(offset))


def place_read(kind: str, offset: Mapping[str, Any] | None) -> tuple[int, ...]:
    """Return a connector's replication position. Later positions compare higher, a missing position is the lowest."""
    return _place(kind, offset or {}).read


def _place(kind: str, offset: Mapping[str, Any]) -> Outside:
    if kind == "postgres":
        return Outside((int(offset["lsn"]),)) if offset.get("lsn") else Outside()
    if not offset.get("file"):
        return Outside()
    try:
        number = binlog_number(str(offset["file"]))
    except ValueError:
        return Outside()
    return Outside((number, int(offset.get("pos") or 0)), gtid_numbers(str(offset.get("gtids") or "")))
