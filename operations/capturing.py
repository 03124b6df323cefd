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
from operations.captured_columns import columns_of, kept_tables
from operations.captures import assign_captures, conflicts, databases_of
from operations.connectors_api import (
    SKIP_UNKNOWN_DDL,
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
# How long a worker waits for a connector before it starts without it, and how long one may be away unnoticed.
START_BOUND_S = 45.0
AWAY_S = 15.0
_RESTART_MAX_S = 300.0
_SKIP_S = 60.0


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

    Quarantines the collections of one that does not, whatever the reason, or whose database or table is another one.
    """
    databases = await databases_of(opened.collections)
    existing = await topic_names(opened.settings.kafka.bootstrap or "")
    await assign_captures(opened, databases, existing, progress)
    for halt in conflicts(opened.collections, databases):
        await halts.halt(halt.collection, halt.reason, halt.detail)
    async with connect_client(opened.settings.kafka) as client:
        watch = SourceWatch(opened.bus, client, await published_counts(opened.settings.kafka))
        found = [g for g in groups(opened.collections) if only is None or any(p.name in only for p in g.members)]
        started = await asyncio.gather(*(_begin(client, opened.settings.kafka, g, halts, watch) for g in found))
    for group in (group for group, runs in zip(found, started, strict=True) if runs):
        progress(f"capture of {group.kind} runs")


async def _begin(client: ConnectClient, kafka: Kafka, group: Group, halts: Halts, watch: SourceWatch) -> bool:
    """Make a group's connector run; quarantine its collections where that does not succeed, and say whether it did."""
    try:
        # First, and without Kafka Connect: who reads a topic that is not there is assigned nothing of it later.
        await make_topics(kafka, group)
        await watch.look(group, halts)
        status = await client.status(group.connector)
        if not _watched(group, halts) or await halt_lost(group, status, halts):
            return False
        await make_connector(client, kafka, group, keep=True)
        await client.wait_running(group.connector, START_BOUND_S)
    except CommandError as error:
        await _quarantine(group, halts, error.message)
        return False
    except CrossfadeError as error:
        for ports in group.members:
            halts.away(ports.name, GUARD, str(error))
        return False
    return True


async def _quarantine(group: Group, halts: Halts, why: str) -> None:
    """Quarantine a group's collections for as long as its connector does not run."""
    for ports in group.members:
        if halts.of(ports.name) is None:
            await halts.halt(ports.name, Reason.CONNECTOR, why)


def _release(group: Group, halts: Halts) -> None:
    for ports in group.members:
        if (halt := halts.of(ports.name)) is not None and halt.reason is Reason.CONNECTOR:
            halts.release(ports.name)


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
        config |= kept_tables(config, current)
    await client.put_config(group.connector, config)


async def make_topics(kafka: Kafka, group: Group) -> None:
    """Create a group's topics before anybody reads them: a worker would be assigned nothing of a missing one."""
    topics = captured_topics(kafka, group.captures, mariadb=group.kind == "mariadb")
    bootstrap = kafka.bootstrap or ""
    await provision(bootstrap, plan(topics, await existing_topics(bootstrap, [topic.name for topic in topics])))


def _config(kafka: Kafka, group: Group, *, snapshot_all: bool) -> dict[str, str]:
    name, prefix = group.connector, group.capture.prefix
    tables = sorted({capture.table for capture in group.captures})
    columns = columns_of(kafka, group.members)
    if group.kind == "mariadb":
        bootstrap = kafka.bootstrap or ""
        config = mariadb_connector(name, group.dsn, prefix, tables, bootstrap_servers=bootstrap, columns=columns)
    else:
        slot = group.slot
        config = postgres_connector(name, group.dsn, prefix, tables, slot=slot, publication=slot, columns=columns)
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

    Lost places stop their collections. One whose connector does not run otherwise is quarantined until it does, and the
    connector is started again, with growing pauses. Raises Misconfigured when the log has another number of partitions:
    no version could be trusted.
    """
    kafka = opened.settings.kafka
    watched: dict[str, _Watched] = defaultdict(_Watched)
    async with connect_client(kafka) as client:
        watch = SourceWatch(opened.bus, client)
        while True:
            await _same_partitions(opened)
            await asyncio.gather(
                *(_guard(client, kafka, g, halts, watch, watched[g.connector]) for g in groups(opened.collections))
            )
            if halts.now:
                changed()
            await asyncio.sleep(GUARD_S)


def _watched(group: Group, halts: Halts) -> bool:
    return any((halt := halts.of(ports.name)) is None or halt.captures or halt.passes for ports in group.members)


@dataclass(slots=True)
class _Watched:
    """A connector's restarts in a row, when the next may be, and since when it does not run."""

    count: int = 0
    due_s: float = 0.0
    noted: int = 0
    away_since_s: float | None = None
    skips_until_s: float = 0.0

    def passed_over(self, now_s: float) -> bool:
        """Say whether statements that a connector does not understand are again to end it."""
        return now_s >= self.skips_until_s

    def due(self, now_s: float) -> bool:
        """Say whether to start it again now; the pause until the next time grows."""
        if now_s < self.due_s:
            return False
        self.due_s = now_s + min(_RESTART_MAX_S, GUARD_S * 2**self.count)
        self.count = min(self.count + 1, 10)
        return True

    def away(self, now_s: float) -> bool:
        """Note that it does not run; say whether that lasts longer than a restart."""
        self.away_since_s = now_s if self.away_since_s is None else self.away_since_s
        return now_s - self.away_since_s >= AWAY_S


async def _guard(
    client: ConnectClient, kafka: Kafka, group: Group, halts: Halts, watch: SourceWatch, watched: _Watched
) -> None:
    """Watch one connector and its database; whatever is wrong with them is nothing to the others."""
    why: str | None = None
    try:
        if _watched(group, halts):
            await watch.look(group, halts)
        for ports in group.members:
            halts.back(ports.name, GUARD)
        if _watched(group, halts):
            why = await _guard_connector(client, kafka, group, halts, watched)
    except CrossfadeError as error:
        for ports in group.members:
            halts.away(ports.name, GUARD, str(error))
    except CommandError as error:
        why = error.message
    if why is None:
        watched.away_since_s = None
    elif watched.away(time.monotonic()):
        await _quarantine(group, halts, why)


async def _guard_connector(
    client: ConnectClient, kafka: Kafka, group: Group, halts: Halts, watched: _Watched
) -> str | None:
    """Start a group's connector again where that is due; return why it does not run, None where nothing is wrong."""
    status = await client.status(group.connector)
    if await halt_lost(group, status, halts):
        return None
    if status.running:
        if watched.passed_over(time.monotonic()):
            await _skip_unknown(client, group, skip=False)
        await _note_capturing(group, watched)
        _release(group, halts)
        watched.count = 0
        return None
    if status.state == "MISSING" and watched.due(time.monotonic()):
        await make_connector(client, kafka, group, keep=True)
    elif status.failed and watched.due(time.monotonic()):
        log.error("the connector %s failed and is started again: %s", group.connector, status.failure)
        if status.statement is not None and not _concerns(group, status.statement):
            # Debezium's parser knows not all of MariaDB: for a minute, what others do to their tables is passed over.
            watched.skips_until_s = time.monotonic() + _SKIP_S
            await _skip_unknown(client, group, skip=True)
        await client.restart(group.connector)
    return status.trouble


def _concerns(group: Group, statement: str) -> bool:
    """Say whether a statement may be about a captured table: its name is in it, as in `_articles_gho`."""
    lowered = statement.lower()
    return any(capture.table.rpartition(".")[2].lower() in lowered for capture in group.captures)


async def _skip_unknown(client: ConnectClient, group: Group, *, skip: bool) -> None:
    """Have a connector pass over statements that it does not understand, or fail at them, as it does by default."""
    config = await client.config(group.connector) if group.kind == "mariadb" else {}
    if config and (config.get(SKIP_UNKNOWN_DDL) == "true") != skip:
        await client.put_config(group.connector, {**config, SKIP_UNKNOWN_DDL: str(skip).lower()})


async def _note_capturing(group: Group, watched: _Watched) -> None:
    """Record, once, that a group's connector runs; in PostgreSQL only when its slot is there."""
    if watched.noted == len(group.members):
        return
    if group.kind == "postgres" and await slot_state(group.dsn, group.slot) != "there":
        return
    for ports in group.members:
        await ports.ledger.record(f"{CAPTURING}.{ports.name}", group.epoch)
    watched.noted = len(group.members)


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
