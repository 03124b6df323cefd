"""Capture's connectors: one for each database and source epoch. Made here, and quarantined if a log was lost.

A collection is captured in a source epoch of its database. Collections of one epoch share a connector, its slot and its
topics. A collection that is new or recaptured gets the next epoch, and a snapshot that the others need not take.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from connectors.addresses import brokers_of, connect_of
from connectors.debezium.configuration import (
    EXACT,
    SLOT_FAILOVER,
    SNAPSHOT_MODE,
    TABLE_LIST,
    mariadb_connector,
    postgres_connector,
)
from connectors.errors import CrossfadeError, TaskFailed
from connectors.kafka.admin import existing_topics, provision, topic_names
from connectors.kafka.connect import ConnectClient, ConnectorStatus
from connectors.ports import Ledger
from connectors.sql.postgres.slots import slot_state
from connectors.sql.postgres.source import failover_slots
from domain.quarantine import Reason
from migration.capture.columns import columns_of, exact, kept_tables
from migration.capture.names import assign_captures, conflicts, databases_of
from migration.collection import CollectionPorts
from migration.opener import Opened
from migration.quarantine import Quarantines
from migration.state import CollectionState
from migration.watch.sources import SourceWatch, published_counts
from schemas.settings import Kafka
from topics.captures import Capture
from topics.provisioning import captured_topics, plan

log = logging.getLogger("crossfade.capture")
Progress = Callable[[str], None]
# Recorded with the source epoch once its connector has run: from then on, a missing slot means that it was lost.
CAPTURING = "capturing"
CONNECTOR_BOUND_S = 90.0
# The sources of the note that a collection is away: GUARD if its connector cannot be watched, NAMES if the names of its
# capture, or a conflict, could not be recorded.
GUARD = "guard"
NAMES = "names"
# How long a worker waits for a connector before it starts without it.
START_BOUND_S = 45.0


@dataclass(frozen=True, slots=True)
class Group:
    """The collections that share a connector: those of one database that are captured in one source epoch."""

    kind: str
    dsn: str
    capture: Capture
    members: tuple[CollectionPorts, ...]

    @property
    def connector(self) -> str:
        """The name of its connector."""
        return self.capture.connector

    @property
    def slot(self) -> str:
        """The name of its slot and of its publication, in PostgreSQL."""
        return self.capture.slot

    @property
    def epoch(self) -> int:
        """Its source epoch."""
        return self.capture.epoch

    @property
    def captures(self) -> list[Capture]:
        """The names of its members' captures."""
        return [ports.capture for ports in self.members if ports.capture is not None]


def groups(collections: Mapping[str, CollectionPorts]) -> list[Group]:
    """Return the captured collections, grouped by connector.

    If a database is reached by several addresses or roles, those of the collection whose name comes first are used.
    """
    found: dict[str, list[CollectionPorts]] = defaultdict(list)
    for _, ports in sorted(collections.items()):
        if ports.capture is not None:
            found[ports.capture.connector].append(ports)
    return [
        Group(first.settings.connector, first.settings.dsn or "", first.capture, (first, *others))
        for first, *others in found.values()
        if first.capture is not None
    ]


async def prepare_capture(
    opened: Opened, quarantines: Quarantines, progress: Progress, only: Collection[str] | None = None
) -> None:
    """Make the connector of every group run; with `only`, of the groups that contain one of the named collections.

    Quarantines the collections of a connector that does not run, whatever the reason, or whose database or table is
    not the recorded one. A database fails alone: what it prevented must be tried again while `NAMES` notes its
    collections as away.
    """
    databases, away = await databases_of(opened.collections)
    existing = await topic_names(brokers_of(opened.settings.kafka))
    away |= await assign_captures(opened, databases, existing, progress)
    away = {name: error for name, error in away.items() if opened.collections[name].capture is None}
    for quarantine in conflicts(opened.collections, databases):
        try:
            await quarantines.quarantine(quarantine.collection, quarantine.reason, quarantine.detail)
        except CrossfadeError as error:
            away[quarantine.collection] = error
    for name in opened.collections:
        if name in away:
            quarantines.away(name, NAMES, str(away[name]))
        else:
            quarantines.back(name, NAMES)
    async with ConnectClient(connect_of(opened.settings.kafka)) as client:
        watch = SourceWatch(opened.bus, client, await published_counts(opened.settings.kafka))
        found = [g for g in groups(opened.collections) if only is None or any(p.name in only for p in g.members)]
        started = await asyncio.gather(*(_begin(client, opened.settings.kafka, g, quarantines, watch) for g in found))
    for group in (group for group, runs in zip(found, started, strict=True) if runs):
        progress(f"capture of {group.kind} runs")


async def _begin(
    client: ConnectClient, kafka: Kafka, group: Group, quarantines: Quarantines, watch: SourceWatch
) -> bool:
    """Make a group's connector run; quarantine its collections if that fails. Return whether it runs."""
    try:
        # First, and without Kafka Connect: a consumer that reads a missing topic is assigned nothing of it later.
        await make_topics(kafka, group)
        if not await watch.look(group, quarantines) or not watches(group, quarantines):
            return False
        if await quarantine_lost(group, await client.status(group.connector), quarantines):
            return False
        await make_connector(client, kafka, readable(group, quarantines), keep=True)
        await client.wait_running(group.connector, START_BOUND_S)
    except TaskFailed as error:
        await quarantine_group(group, quarantines, error.message)
        return False
    except CrossfadeError as error:
        for ports in group.members:
            quarantines.away(ports.name, GUARD, str(error))
        return False
    return True


def watches(group: Group, quarantines: Quarantines) -> bool:
    """Return whether any collection of a group is active, or would be if the cause of its quarantine were gone."""
    return any(
        (quarantine := quarantines.of(ports.name)) is None or quarantine.captures or quarantine.passes
        for ports in group.members
    )


def readable(group: Group, quarantines: Quarantines) -> Group:
    """Return a group without the MariaDB tables that cannot be read: a connector may fail at each of their rows."""
    left = tuple(
        p
        for p in group.members
        if (quarantine := quarantines.of(p.name)) is None or quarantine.reason is not Reason.UNREADABLE
    )
    return replace(group, members=left) if left and group.kind == "mariadb" else group


async def quarantine_group(group: Group, quarantines: Quarantines, why: str) -> None:
    """Quarantine a group's collections for as long as its connector does not run."""
    for ports in group.members:
        if quarantines.of(ports.name) is None:
            await quarantines.quarantine(ports.name, Reason.CONNECTOR, why)


async def make_connector(client: ConnectClient, kafka: Kafka, group: Group, *, keep: bool = False) -> None:
    """Create the missing topics of a group's epoch, then create its connector or change it to these tables.

    With `keep` the connector continues with the other tables that it captures. Otherwise nobody would see the changes
    of a table that is left out for a while because it is not as it must be. With `keep` it also takes no snapshot if a
    backfill brings the rows. Without `keep`, what was lost is read again.
    """
    await make_topics(kafka, group)
    config = _config(kafka, group, snapshot_all=not keep)
    if group.kind == "postgres" and await failover_slots(group.dsn):
        config[SLOT_FAILOVER] = "true"
    current = await client.config(group.connector) if keep else {}
    if current.get("topic.prefix") == config["topic.prefix"]:
        # Whether to take a snapshot was decided when the connector was made; it may still be reading it.
        config[SNAPSHOT_MODE] = current.get(SNAPSHOT_MODE, config[SNAPSHOT_MODE])
        config |= kept_tables(config, current)
    await client.put_config(group.connector, config)


async def other_tables(client: ConnectClient, kafka: Kafka, group: Group) -> list[str]:
    """Return the tables that a group's connector captures and that belong to none of its collections."""
    own = _config(kafka, group, snapshot_all=False)[TABLE_LIST].split(",")
    current = (await client.config(group.connector)).get(TABLE_LIST)
    return [table.removeprefix(EXACT) for table in exact(current) if table not in own] if current else []


async def make_topics(kafka: Kafka, group: Group) -> None:
    """Create a group's topics before anybody reads them: a worker would be assigned nothing of a missing topic."""
    topics = captured_topics(kafka, group.captures, mariadb=group.kind == "mariadb")
    bootstrap = brokers_of(kafka)
    await provision(bootstrap, plan(topics, await existing_topics(bootstrap, [topic.name for topic in topics])))


def _config(kafka: Kafka, group: Group, *, snapshot_all: bool) -> dict[str, str]:
    name, prefix = group.connector, group.capture.prefix
    tables = sorted({capture.table for capture in group.captures})
    columns = columns_of(kafka, group.members)
    if group.kind == "mariadb":
        bootstrap = brokers_of(kafka)
        config = mariadb_connector(name, group.dsn, prefix, tables, bootstrap_servers=bootstrap, columns=columns)
    else:
        slot = group.slot
        config = postgres_connector(name, group.dsn, prefix, tables, slot=slot, publication=slot, columns=columns)
    if not snapshot_all and all(ports.settings.initial_load == "backfill" for ports in group.members):
        config[SNAPSHOT_MODE] = "no_data"
    return config


async def captured_epoch(ledger: Ledger, name: str) -> int | None:
    """Return the source epoch of a collection if its connector has run in it, None if it has not yet."""
    epoch = await CollectionState(ledger, name).source_epoch()
    return epoch if epoch is not None and await ledger.get_meta(f"{CAPTURING}.{name}") == epoch else None


async def quarantine_lost(group: Group, status: ConnectorStatus, quarantines: Quarantines) -> bool:
    """Quarantine a group's collections if its replication position was lost; return whether it was.

    A loss that the connector itself reports is believed. A missing slot or connector counts only if the connector ever
    ran. If one of the collections cannot be quarantined, the error is raised once the others are.
    """
    why = f"{group.connector}: {status.failure}" if status.lost else await _missing(group, status)
    if why is None or not (status.lost or await _has_run(group)):
        return False
    failed: CrossfadeError | None = None
    for ports in group.members:
        try:
            await quarantines.quarantine(ports.name, Reason.CAPTURE_LOST, why)
        except CrossfadeError as error:
            failed = error
    if failed is not None:
        raise failed
    return True


async def _missing(group: Group, status: ConnectorStatus) -> str | None:
    if group.kind == "postgres":
        state = await slot_state(group.dsn, group.slot)
        return None if state == "there" else f"the replication slot {group.slot} is {state}"
    # Only a MariaDB connector itself knows what it had read; a new one would begin at the end of the binary log.
    return f"the connector {group.connector} is missing" if status.state == "MISSING" else None


async def _has_run(group: Group) -> bool:
    """Return whether a group's connector ever ran. Raises the error of an unreadable record that might show it."""
    unknown: CrossfadeError | None = None
    for ports in group.members:
        try:
            if await ports.ledger.get_meta(f"{CAPTURING}.{ports.name}") == group.epoch:
                return True
        except CrossfadeError as error:
            unknown = error
    if unknown is not None:
        raise unknown
    return False
