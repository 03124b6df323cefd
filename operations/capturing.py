"""Capture's connectors: one for each database and source epoch. Made, watched, and stopped where a log was lost.

A collection is captured in a source epoch of its database. Those of one epoch share a connector, its slot and its
topics; a collection that is new, or captured anew, gets the next epoch, and a snapshot that the others need not take.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from agents.assembly import LOG_PARTITIONS, SOURCE_EPOCH, Opened
from agents.batch import CollectionPorts
from agents.halts import Halts
from connectors.errors import CrossfadeError, Misconfigured
from connectors.kafka.admin import existing_topics, partition_counts, provision, topic_names
from connectors.ports import Ledger
from connectors.postgres.slots import slot_state
from connectors.postgres.source import failover_slots
from domain.halts import Reason
from operations.captures import assign_captures, conflicts, databases_of
from operations.connectors_api import (
    SLOT_FAILOVER,
    SNAPSHOT_MODE,
    ConnectClient,
    ConnectorStatus,
    mariadb_connector,
    postgres_connector,
)
from operations.errors import CommandError
from operations.source_watch import SourceWatch, published_counts
from schemas.settings import Kafka
from topics.captures import Capture
from topics.catalogue import LOG
from topics.provisioning import captured_topics, plan

log = logging.getLogger("crossfade.capture")
Progress = Callable[[str], None]
# Recorded beside the source epoch once its connector ran: from then on a slot that is missing was lost.
CAPTURING = "capturing"
CONNECTOR_BOUND_S = 90.0
GUARD_S = 5.0
# Who says that a collection is away, where its database cannot be watched.
GUARD = "guard"
_RESTART_MAX_S = 300.0
_TABLE_LISTS = frozenset({"table.include.list", "database.include.list"})


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
    """Return the captured collections by their connectors.

    Where one is reached by several addresses or roles, that of the collection whose name comes first is used.
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
    opened: Opened, halts: Halts, progress: Progress, only: Collection[str] | None = None
) -> None:
    """Make the connector of every group run, with `only` of those with one of the named collections.

    Stops the collections of one that lost its place in the database's log, or whose database or table is another one.

    Raises CommandError where a connector fails for another reason.
    """
    databases = await databases_of(opened.collections)
    existing = await topic_names(opened.settings.kafka.bootstrap or "")
    await assign_captures(opened, databases, existing, progress)
    for halt in conflicts(opened.collections, databases):
        await halts.halt(halt.collection, halt.reason, halt.detail)
    async with connect_client(opened.settings.kafka) as client:
        watch = SourceWatch(opened.bus, client, await published_counts(opened.settings.kafka))
        for group in groups(opened.collections):
            if only is not None and not any(ports.name in only for ports in group.members):
                continue
            await watch.look(group, halts)
            status = await client.status(group.connector)
            if not _watched(group, halts) or await halt_lost(group, status, halts):
                continue
            await make_connector(client, opened.settings.kafka, group, keep=True)
            try:
                await client.wait_running(group.connector, CONNECTOR_BOUND_S)
            except CommandError:
                if not await halt_lost(group, await client.status(group.connector), halts):
                    raise
                continue
            progress(f"capture of {group.kind} runs")


def connect_client(kafka: Kafka) -> ConnectClient:
    """Return a client of the configured Kafka Connect. Raises CommandError where there is none."""
    if kafka.connect is None:
        raise CommandError("There is no Kafka Connect.", "Set kafka.connect, or run: crossfade up")
    return ConnectClient(kafka.connect)


async def make_connector(client: ConnectClient, kafka: Kafka, group: Group, *, keep: bool = False) -> None:
    """Create the topics of a group's epoch that are missing, then its connector, or change it to these tables.

    With `keep` it goes on with the tables that it captures beside them: one that is left out for a while, because it is
    not as it must be, would have changes that nobody sees. And where a backfill brings the rows it takes no snapshot;
    without, what was lost is read again.
    """
    await make_topics(kafka, group)
    config = _config(kafka, group, snapshot_all=not keep)
    if group.kind == "postgres" and await failover_slots(group.dsn):
        config[SLOT_FAILOVER] = "true"
    current = await client.config(group.connector) if keep else {}
    if current.get("topic.prefix") == config["topic.prefix"]:
        # Whether there is a snapshot was said when the connector was made; it may be reading it still.
        config[SNAPSHOT_MODE] = current.get(SNAPSHOT_MODE, config[SNAPSHOT_MODE])
        for key in _TABLE_LISTS & config.keys():
            config[key] = ",".join(sorted({*config[key].split(","), *current.get(key, config[key]).split(",")}))
    await client.put_config(group.connector, config)


async def make_topics(kafka: Kafka, group: Group) -> None:
    """Create a group's topics before anybody reads them: a worker would be assigned nothing of a missing one."""
    topics = captured_topics(kafka, group.captures, mariadb=group.kind == "mariadb")
    bootstrap = kafka.bootstrap or ""
    await provision(bootstrap, plan(topics, await existing_topics(bootstrap, [topic.name for topic in topics])))


def _config(kafka: Kafka, group: Group, *, snapshot_all: bool) -> dict[str, str]:
    name, prefix = group.connector, group.capture.prefix
    tables = sorted({capture.table for capture in group.captures})
    if group.kind == "mariadb":
        config = mariadb_connector(name, group.dsn, prefix, tables, bootstrap_servers=kafka.bootstrap or "")
    else:
        config = postgres_connector(name, group.dsn, prefix, tables, slot=group.slot, publication=group.slot)
    if not snapshot_all and all(ports.settings.fill == "backfill" for ports in group.members):
        config[SNAPSHOT_MODE] = "no_data"
    return config


async def captured_epoch(ledger: Ledger, name: str) -> int | None:
    """Return the source epoch of a collection where its connector has run in it, None where it has not yet."""
    epoch = await ledger.recorded(f"{SOURCE_EPOCH}.{name}")
    return epoch if epoch is not None and await ledger.recorded(f"{CAPTURING}.{name}") == epoch else None


async def halt_lost(group: Group, status: ConnectorStatus, halts: Halts) -> bool:
    """Stop a group's collections where its place in the database's log was lost; say whether it was.

    What a connector says of its place is so; that there is none is nothing to a connector that never ran.
    """
    why = f"{group.connector}: {status.failure}" if status.lost else None
    if why is None and any([await p.ledger.recorded(f"{CAPTURING}.{p.name}") == group.epoch for p in group.members]):
        why = await _missing(group, status)
    if why is None:
        return False
    for ports in group.members:
        await halts.halt(ports.name, Reason.CAPTURE_LOST, why)
    return True


async def _missing(group: Group, status: ConnectorStatus) -> str | None:
    if group.kind == "postgres":
        state = await slot_state(group.dsn, group.slot)
        return None if state == "there" else f"the replication slot {group.slot} is {state}"
    # What a MariaDB connector had read is known to it alone; a new one would begin at the end of the binary log.
    return f"the connector {group.connector} is missing" if status.state == "MISSING" else None


async def guard_capture(opened: Opened, halts: Halts, changed: Callable[[], None]) -> None:
    """Watch the connectors and the number of partitions of the log, for as long as the worker runs.

    Lost places stop their collections; a connector that failed otherwise is started again, with growing pauses. Raises
    Misconfigured when the log has another number of partitions: no version could be trusted.
    """
    watched: dict[str, _Restarts] = defaultdict(_Restarts)
    async with connect_client(opened.settings.kafka) as client:
        watch = SourceWatch(opened.bus, client)
        while True:
            await _same_partitions(opened)
            await asyncio.gather(
                *(_guard(client, g, halts, watch, watched[g.connector]) for g in groups(opened.collections))
            )
            if halts.now:
                changed()
            await asyncio.sleep(GUARD_S)


def _watched(group: Group, halts: Halts) -> bool:
    return any((halt := halts.of(ports.name)) is None or halt.captures or halt.passes for ports in group.members)


@dataclass(slots=True)
class _Restarts:
    """How often a connector was started again in a row, and when it may be next."""

    count: int = 0
    due_s: float = 0.0
    noted: int = 0


async def _guard(client: ConnectClient, group: Group, halts: Halts, watch: SourceWatch, restarts: _Restarts) -> None:
    """Watch one connector and its database; whatever is wrong with them is nothing to the others."""
    try:
        if _watched(group, halts):
            await watch.look(group, halts)
        for ports in group.members:
            halts.back(ports.name, GUARD)
        if _watched(group, halts):
            await _guard_connector(client, group, halts, restarts)
    except CrossfadeError as error:
        for ports in group.members:
            halts.away(ports.name, GUARD, str(error))
    except CommandError as error:
        log.warning("the connector %s is not watched now: %s", group.connector, error)


async def _guard_connector(client: ConnectClient, group: Group, halts: Halts, restarts: _Restarts) -> None:
    status = await client.status(group.connector)
    if await halt_lost(group, status, halts):
        return
    if status.running:
        await _note_capturing(group, restarts)
        restarts.count = 0
    elif status.failed and time.monotonic() >= restarts.due_s:
        log.error("the connector %s failed and is started again: %s", group.connector, status.failure)
        await client.restart(group.connector)
        restarts.due_s = time.monotonic() + min(_RESTART_MAX_S, GUARD_S * 2**restarts.count)
        restarts.count = min(restarts.count + 1, 10)


async def _note_capturing(group: Group, restarts: _Restarts) -> None:
    """Record, once, that a group's connector runs; in PostgreSQL only when its slot is there."""
    if restarts.noted == len(group.members):
        return
    if group.kind == "postgres" and await slot_state(group.dsn, group.slot) != "there":
        return
    for ports in group.members:
        await ports.ledger.record(f"{CAPTURING}.{ports.name}", group.epoch)
    restarts.noted = len(group.members)


async def _same_partitions(opened: Opened) -> None:
    """Raise Misconfigured where the log has another number of partitions; who does not answer is asked again later."""
    counts: dict[str, int] = {}
    with suppress(CrossfadeError):
        counts = await partition_counts(opened.settings.kafka.bootstrap or "", [LOG])
    for ports in list(opened.collections.values()):
        recorded = None
        with suppress(CrossfadeError):
            recorded = await ports.ledger.recorded(LOG_PARTITIONS)
        if LOG in counts and recorded is not None and counts[LOG] != recorded:
            raise Misconfigured(f"{LOG} has {counts[LOG]} partitions and had {recorded}: no version can be trusted")
