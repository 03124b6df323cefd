"""Guards capture for as long as a worker runs: the connectors, the databases that they read, the log's partitions.

A problem with one of them does not affect the others, and passes with its cause. Lost changes quarantine the
collections concerned.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from connectors.addresses import brokers_of, connect_of
from connectors.debezium.configuration import SKIP_UNKNOWN_DDL
from connectors.debezium.schema_history import known_columns
from connectors.errors import CrossfadeError, Misconfigured, TaskFailed
from connectors.kafka.admin import partition_counts
from connectors.kafka.connect import ConnectClient, ConnectorStatus, in_snapshot
from connectors.sql.mariadb.source import column_order
from connectors.sql.postgres.slots import slot_state
from domain.quarantine import Reason
from migration.capture.columns import without_tables
from migration.capture.connectors import (
    CAPTURING,
    GUARD,
    NAMES,
    Group,
    groups,
    make_connector,
    prepare_capture,
    quarantine_group,
    quarantine_lost,
    readable,
    watches,
)
from migration.collection import CollectionPorts
from migration.opener import Opened
from migration.quarantine import Quarantines
from migration.state import log_partitions
from migration.watch.sources import SourceWatch, place_read
from schemas.settings import Kafka
from topics.catalogue import LOG

log = logging.getLogger("crossfade.capture")
GUARD_S = 5.0
# How long a connector may be down before its collections are quarantined.
AWAY_S = 15.0
# A connector that failed and has read nothing since counts as healthy after it has run for this long.
WELL_S = 60.0
_RESTART_MAX_S = 300.0
_SKIP_S = 60.0
# How many characters of a statement a message shows.
_QUOTED = 300
# How often Debezium's model of MariaDB's tables is compared with the tables.
MODEL_S = 10.0
_ALTERED = re.compile(
    r"\s*(?:/\*.*?\*/\s*)*alter\s+(?:online\s+)?(?:ignore\s+)?table\s+(?:if\s+exists\s+)?"
    r"((?:`[^`]+`|[\w$]+)(?:\s*\.\s*(?:`[^`]+`|[\w$]+))?)",
    re.IGNORECASE | re.DOTALL,
)


async def guard_capture(opened: Opened, quarantines: Quarantines, changed: Callable[[], None]) -> None:
    """Watch the connectors and the number of partitions of the log, for as long as the worker runs.

    A lost replication position quarantines its collections. If a connector is down for another reason, its collections
    are quarantined until it runs, and it is started again with growing pauses. Raises Misconfigured if the log has
    another number of partitions, because no version could be trusted.
    """
    kafka = opened.settings.kafka
    watched: dict[str, _Watched] = defaultdict(_Watched)
    rounds = Rounds()
    async with ConnectClient(connect_of(kafka)) as client:
        watch = SourceWatch(opened.bus, client)
        try:
            while True:
                begun_s = time.monotonic()
                rounds.begin("partitions", _same_partitions(opened))
                rounds.begin(NAMES, _prepare_left(opened, quarantines))
                for group in groups(opened.collections):
                    name = group.connector
                    rounds.begin(name, _guard(client, kafka, group, quarantines, watch, watched[name]))
                await rounds.passed(GUARD_S)
                if quarantines.now:
                    changed()
                # At a steady pace, however long the slowest check takes: what happens between two checks is not seen.
                await asyncio.sleep(max(0.0, begun_s + GUARD_S - time.monotonic()))
        finally:
            await rounds.end()


class Rounds:
    """Repeated checks, by name. A check that takes long is not started again before it ends."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a check unless the previous one of that name is still running."""
        if name in self._tasks:
            work.close()
        else:
            self._tasks[name] = asyncio.create_task(work)

    async def passed(self, limit_s: float) -> None:
        """Wait until all checks have ended, or the limit is reached. Raises the error that ended a check."""
        await asyncio.wait(self._tasks.values(), timeout=limit_s)
        for name in [name for name, task in self._tasks.items() if task.done()]:
            self._tasks.pop(name).result()

    async def end(self) -> None:
        """Cancel the checks that are still running."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


async def _prepare_left(opened: Opened, quarantines: Quarantines) -> None:
    """Prepare capture of the collections whose databases were unreachable when capture was prepared."""
    if left := quarantines.noted_by(NAMES) & opened.collections.keys():
        try:
            await prepare_capture(opened, quarantines, log.info, only=left)
        except CrossfadeError as error:
            log.warning("capture of %s cannot begin yet: %s", ", ".join(sorted(left)), error)


@dataclass(slots=True)
class _Watched:
    """A connector's restarts in a row, when the next restart is allowed, and since when the connector is down.

    A connector that fails at a change runs for some seconds after each restart before it reaches that change again. It
    is healthy again once it has read beyond `failed_at`, its replication position at the failure, or has run for long.
    """

    count: int = 0
    due_s: float = 0.0
    noted: int = 0
    away_since_s: float | None = None
    running_since_s: float | None = None
    failed_at: tuple[int, ...] | None = None
    skips_until_s: float = 0.0
    compared_s: float = 0.0
    unlike: dict[str, tuple[list[str], tuple[int, ...]]] = field(default_factory=dict)

    def failed(self, place: tuple[int, ...]) -> None:
        """Note that it failed, and how far it had read. A failure at a later position is a new one."""
        if self.failed_at is not None and place > self.failed_at:
            self.well()
        self.failed_at = max(place, self.failed_at or ())

    def ran(self, now_s: float, place: tuple[int, ...]) -> bool:
        """Note that it runs after a failure, and how far it has read; say whether it is healthy again."""
        self.running_since_s = now_s if self.running_since_s is None else self.running_since_s
        return place > (self.failed_at or ()) or now_s - self.running_since_s >= WELL_S

    def well(self) -> None:
        """Forget earlier restarts and failures."""
        self.count, self.failed_at, self.away_since_s = 0, None, None

    def passed_over(self, now_s: float) -> bool:
        """Say whether the connector must fail again at statements that it does not understand."""
        return now_s >= self.skips_until_s

    def due(self, now_s: float) -> bool:
        """Say whether to start it again now. The pause before the next restart grows."""
        if now_s < self.due_s:
            return False
        self.due_s = now_s + min(_RESTART_MAX_S, GUARD_S * 2**self.count)
        self.count = min(self.count + 1, 10)
        return True

    def away(self, now_s: float) -> bool:
        """Note that it does not run; say whether it has been down for longer than a restart takes."""
        self.running_since_s = None
        self.away_since_s = now_s if self.away_since_s is None else self.away_since_s
        return now_s - self.away_since_s >= AWAY_S


async def _guard(
    client: ConnectClient, kafka: Kafka, group: Group, quarantines: Quarantines, watch: SourceWatch, watched: _Watched
) -> None:
    """Watch one connector and its database. Their problems do not affect other connectors."""
    why: str | None = None
    try:
        if watches(group, quarantines):
            await watch.look(group, quarantines)
        if watches(group, quarantines):
            why = await _guard_connector(client, kafka, group, quarantines, watched)
        for ports in group.members:
            quarantines.back(ports.name, GUARD)
    except TaskFailed as error:
        why = error.message
    except CrossfadeError as error:
        for ports in group.members:
            quarantines.away(ports.name, GUARD, str(error))
    if why is None and watched.failed_at is None:
        watched.away_since_s = None
    elif why is not None and watched.away(time.monotonic()):
        await quarantine_group(group, quarantines, why)


async def _guard_connector(
    client: ConnectClient, kafka: Kafka, group: Group, quarantines: Quarantines, watched: _Watched
) -> str | None:
    """Start a group's connector again if that is due; return why it does not run, None if nothing is wrong."""
    status = await client.status(group.connector)
    if await quarantine_lost(group, status, quarantines):
        return None
    if group.kind == "mariadb" and time.monotonic() >= watched.compared_s + MODEL_S:
        watched.compared_s = time.monotonic()
        await _compare_models(client, kafka, group, quarantines, watched, status)
    if status.running:
        if watched.passed_over(time.monotonic()):
            await _fail_at_unknown(client, group)
        await _note_capturing(group, watched)
        if await _in_order(client, group, watched):
            watched.well()
            _release(group, quarantines)
        return None
    if status.failed:
        watched.failed(await _place_of(client, group))
    if status.state == "MISSING" and watched.due(time.monotonic()):
        await make_connector(client, kafka, readable(group, quarantines), keep=True)
    elif status.failed and watched.due(time.monotonic()):
        log.error("the connector %s failed and is started again: %s", group.connector, status.failure)
        if status.statement is not None or status.table is not None:
            await _pass_over(client, group, quarantines, status)
            watched.skips_until_s = time.monotonic() + _SKIP_S
        await client.restart(group.connector)
    return status.trouble


async def _in_order(client: ConnectClient, group: Group, watched: _Watched) -> bool:
    """Say whether a running connector is healthy, not merely on its way back to the change at which it failed."""
    return watched.failed_at is None or watched.ran(time.monotonic(), await _place_of(client, group))


async def _place_of(client: ConnectClient, group: Group) -> tuple[int, ...]:
    """Return how far a connector has read.

    There is no position during a snapshot: a snapshot that begins again does so at a later position.
    """
    offset = await client.committed(group.connector) or {}
    return () if in_snapshot(offset) else place_read(group.kind, offset)


async def _compare_models(
    client: ConnectClient,
    kafka: Kafka,
    group: Group,
    quarantines: Quarantines,
    watched: _Watched,
    status: ConnectorStatus,
) -> None:
    """Quarantine and leave out the tables whose columns Debezium has in another order, or takes for other columns.

    This happens only after the connector has read to where the binary log ended when the difference was first seen, or
    has failed on its way there.
    """
    known = await known_columns(kafka, group.capture.schema_history)
    left_out = []
    for ports in readable(group, quarantines).members:
        table = "" if ports.capture is None else ports.capture.table
        order, end = await column_order(group.dsn, table)
        if table not in known or not order or known[table] == order:
            watched.unlike.pop(ports.name, None)
            continue
        seen, first_end = watched.unlike.setdefault(ports.name, (order, end))
        if seen != order:
            watched.unlike[ports.name] = (order, end)
        elif status.failed or await _place_of(client, group) >= first_end:
            why = f"Debezium takes its columns for {', '.join(known[table])}, and they are {', '.join(order)}"
            await quarantines.quarantine(ports.name, Reason.UNREADABLE, why)
            left_out.append(table)
    if left_out:
        await _leave_out(client, group, left_out, {})


async def _pass_over(client: ConnectClient, group: Group, quarantines: Quarantines, status: ConnectorStatus) -> None:
    """Let a connector skip, for a while, the MariaDB statements that Debezium's parser does not understand.

    A table that such a statement names, or whose rows have other columns than the connector knows, is quarantined and
    left out.
    """
    left_out = []
    for ports in group.members:
        table = "" if ports.capture is None else ports.capture.table
        database, _, name = table.partition(".")
        if status.statement is not None and names_table(status.statement, database, name):
            why = f"Debezium cannot parse {status.statement[:_QUOTED]!r}"
        elif status.table is not None and status.table.rpartition(".")[2] == name:
            why = "its rows have other columns than Debezium knows of"
        else:
            continue
        await quarantines.quarantine(ports.name, Reason.UNREADABLE, why)
        left_out.append(table)
    await _leave_out(client, group, left_out, {SKIP_UNKNOWN_DDL: "true"} if status.statement is not None else {})


async def _leave_out(client: ConnectClient, group: Group, tables: Sequence[str], other: Mapping[str, str]) -> None:
    """Remove tables from the configuration of a connector, if there is one, and apply the `other` settings."""
    if config := await client.config(group.connector):
        await client.put_config(group.connector, {**without_tables(config, tables), **other})


def names_table(statement: str, database: str, table: str) -> bool:
    """Say whether a statement alters a table, or is no ALTER TABLE but contains the name of the table as a word."""
    altered = _ALTERED.match(statement)
    if altered is None:
        return re.search(rf"(?<![\w$]){re.escape(table)}(?![\w$])", statement, re.IGNORECASE) is not None
    *space, name = (part.strip().strip("`").lower() for part in altered[1].split("."))
    return name == table.lower() and space in ([], [database.lower()])


async def _fail_at_unknown(client: ConnectClient, group: Group) -> None:
    """Let a connector fail again at statements that it does not understand, as it does by default."""
    config = await client.config(group.connector) if group.kind == "mariadb" else {}
    if config.get(SKIP_UNKNOWN_DDL) == "true":
        await client.put_config(group.connector, {**config, SKIP_UNKNOWN_DDL: "false"})


def _release(group: Group, quarantines: Quarantines) -> None:
    for ports in group.members:
        if (quarantine := quarantines.of(ports.name)) is not None and quarantine.reason is Reason.CONNECTOR:
            quarantines.release(ports.name)


async def _note_capturing(group: Group, watched: _Watched) -> None:
    """Record once that a group's connector runs. In PostgreSQL, do so only if its slot exists."""
    if watched.noted == len(group.members):
        return
    if group.kind == "postgres" and await slot_state(group.dsn, group.slot) != "there":
        return
    watched.noted = 0
    for ports in group.members:
        with suppress(CrossfadeError):  # the next check tries again
            await ports.ledger.set_meta(f"{CAPTURING}.{ports.name}", group.epoch)
            watched.noted += 1


async def _same_partitions(opened: Opened) -> None:
    """Raise Misconfigured if the log has another number of partitions. A store that does not answer is asked later."""
    counts: dict[str, int] = {}
    with suppress(CrossfadeError):
        counts = await partition_counts(brokers_of(opened.settings.kafka), [LOG])
    # Concurrently: an unreachable database takes its whole time limit.
    for recorded in await asyncio.gather(*(_partitions(ports) for ports in list(opened.collections.values()))):
        if LOG in counts and recorded is not None and counts[LOG] != recorded:
            raise Misconfigured(f"{LOG} has {counts[LOG]} partitions and had {recorded}: no version can be trusted")


async def _partitions(ports: CollectionPorts) -> int | None:
    with suppress(CrossfadeError):
        return await log_partitions(ports.ledger)
    return None
