"""Recaptures collections after their replication position was lost, and then proves that both stores are equal.

A new source epoch has a connector, a slot and topics of its own. Its snapshot brings every row, and the verifier finds
what a snapshot cannot show: deletions. Only then is a collection active again. An interrupted run leaves it
quarantined; the next run continues with the snapshot that was begun.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from connectors.addresses import brokers_of, connect_of
from connectors.errors import TaskFailed
from connectors.kafka.admin import topic_names
from connectors.kafka.connect import ConnectClient
from connectors.kafka.offsets import KafkaOffsets
from connectors.sql.postgres.slots import drop_slot
from domain.quarantine import Reason
from migration.capture.barrier import drained
from migration.capture.connectors import (
    CONNECTOR_BOUND_S,
    Group,
    groups,
    make_connector,
    make_topics,
    other_tables,
)
from migration.capture.names import Database, databases_of, next_epoch
from migration.lag import pipeline
from migration.opener import Opened, open_all
from migration.preflight.tables import check_tables
from migration.state import CollectionState
from migration.verify.collection import verify_collection
from migration.verify.options import Bounds, VerifyOptions
from migration.watch.sources import published_counts, record_source
from migration.witnesses import record_witnesses, sample
from schemas.settings import Settings
from topics.captures import capture_base, new_capture

Progress = Callable[[str], None]
_DRAIN_BOUND_S = 86_400.0
_POLL_S = 1.0
_REPORT_S = 10.0
# How long the backlog may stay unchanged before the run fails because no worker processes it.
STILL_S = 120.0
_ROUNDS = 10
_SETTLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Recaptured:
    """One collection that is active again: both stores hold the same `documents`; `repaired` differed before."""

    collection: str
    source_epoch: int
    documents: int
    repaired: int
    seconds: float


async def recapture(settings: Settings, home: Path, names: Sequence[str], progress: Progress) -> list[Recaptured]:
    """Capture collections again; return when each is proved equal and active.

    Other collections may be away meanwhile. Raises TaskFailed if a table is not as it must be, a connector fails or may
    capture a collection that is away, no worker runs, or the stores do not become equal.
    """
    chosen = {name: each for name, each in settings.collections.items() if name in names}
    await check_tables(settings.model_copy(update={"collections": chosen}), progress, apply=False)
    opened = await open_all(settings, home, progress, names=list(settings.collections))
    try:
        for name in names:
            if name in opened.away:
                raise TaskFailed(f"{name}: {opened.away[name]}", "Bring its database back, then recapture.")
            quarantine = opened.quarantines.get(name)
            if quarantine is not None and quarantine.reason is Reason.MODEL and quarantine.detail:
                raise TaskFailed(f"{name}: {quarantine.message}.", f"Remedy: {quarantine.remedy}")
        async with ConnectClient(connect_of(settings.kafka)) as client:
            await _check_neighbours(client, opened, names)
            databases, away = await databases_of(opened.collections)
            for error in (away[name] for name in names if name in away):
                raise error
            for database in databases:
                await _begin(client, opened, database, [n for n in names if n in database.members], progress)
            for group in groups({name: opened.collections[name] for name in names}):
                await _snapshot_read(client, group, progress)
        return [await _proved(opened, home, name, progress) for name in names]
    finally:
        await opened.close()


async def _check_neighbours(client: ConnectClient, opened: Opened, names: Sequence[str]) -> None:
    """Refuse to change a connector that may capture a collection about which nothing can be known now."""
    for group in groups(opened.collections) if opened.away else []:
        if {ports.name for ports in group.members} & set(names):
            others = await other_tables(client, opened.settings.kafka, group)
            if others:
                raise TaskFailed(
                    f"{group.connector} captures {', '.join(others)}, too, which may be of {', '.join(opened.away)}: "
                    + "; ".join(opened.away.values()),
                    "Bring that back, or remove it from crossfade.toml, then recapture.",
                )


async def _begin(
    client: ConnectClient, opened: Opened, database: Database, names: Sequence[str], progress: Progress
) -> None:
    """Put collections of one database into a new source epoch, unless an interrupted run already did so.

    Collections whose capture lost nothing are left alone, too: a comparison finds what Qdrant lacks.
    """
    begun = [name for name in names if await _was_begun(client, opened, name)]
    captured = [name for name in names if await _only_points(opened, name)]
    if begun:
        progress(f"{', '.join(begun)}: going on with the snapshot that was begun")
    if captured:
        progress(f"{', '.join(captured)}: capture lost nothing, so every point is compared and no snapshot taken")
    left = [name for name in names if name not in {*begun, *captured}]
    if not left:
        return
    kafka, old = opened.settings.kafka, groups(opened.collections)
    neighbours = {name: opened.collections[name] for name in database.members}
    epoch = await next_epoch(kafka, database, neighbours, await topic_names(brokers_of(kafka)))
    base = capture_base(kafka, database.key)
    for name in left:
        ports = opened.collections[name]
        capture = new_capture(kafka, ports.settings.connector, base, epoch, ports.table.description.place)
        opened.collections[name] = replace(ports, capture=capture)
    new = groups({name: opened.collections[name] for name in left})
    for group in new:
        await make_topics(kafka, group)
    published = await published_counts(kafka)
    for group in new:
        for ports in group.members:
            # In this order: a reader that sees the recapture also sees the new names and the new source.
            await record_source(group, ports, published)
            if ports.capture is not None:
                await CollectionState(ports.ledger, ports.name).record_capture(ports.capture)
            await CollectionState(ports.ledger, ports.name).set_reason(Reason.RECAPTURING)
    for group in new:
        await make_connector(client, kafka, group)
        progress(f"{', '.join(left)}: source epoch {epoch}, connector {group.connector}")
    for group in old:
        if {ports.name for ports in group.members} & set(left):
            await _leave(client, opened, group, left, progress)


async def _was_begun(client: ConnectClient, opened: Opened, name: str) -> bool:
    ports = opened.collections[name]
    if await CollectionState(ports.ledger, name).reason() != Reason.RECAPTURING:
        return False
    (group,) = groups({name: ports})
    return (await client.status(group.connector)).running


async def _only_points(opened: Opened, name: str) -> bool:
    return await CollectionState(opened.collections[name].ledger, name).reason() == Reason.POINTS_REPLACED


async def _leave(client: ConnectClient, opened: Opened, group: Group, left: Sequence[str], progress: Progress) -> None:
    """Take collections out of the connector that captured them; remove one that has none left, with its slot."""
    rest = tuple(ports for ports in group.members if ports.name not in left)
    if rest:
        await make_connector(client, opened.settings.kafka, replace(group, members=rest))
        return
    await client.delete_with_offsets(group.connector)
    if group.kind == "postgres":
        await drop_slot(group.dsn, group.slot, group.slot)
    progress(f"the connector {group.connector} is removed")


async def _snapshot_read(client: ConnectClient, group: Group, progress: Progress) -> None:
    await client.wait_running(group.connector, CONNECTOR_BOUND_S)
    names = ", ".join(ports.name for ports in group.members)
    reported_s = time.monotonic()
    while not await client.has_snapshot(group.connector):
        status = await client.status(group.connector)
        if status.failed:
            raise TaskFailed(f"The connector {group.connector} failed: {status.failure}", "Fix the cause first.")
        if time.monotonic() - reported_s > _REPORT_S:
            progress(f"{names}: the snapshot is being read")
            reported_s = time.monotonic()
        await asyncio.sleep(_POLL_S)
    progress(f"{names}: the snapshot is read")


async def _proved(opened: Opened, home: Path, name: str, progress: Progress) -> Recaptured:
    """Wait until the snapshot is in both stores, repair what it could not show, and make the collection active."""
    started, repaired = time.monotonic(), 0
    ports = opened.collections[name]
    wanted = VerifyOptions(Bounds(recheck_delay_s=_SETTLE_S, sample=0), repair=True, full=True)
    for _ in range(_ROUNDS):
        await _drained(opened, name, progress)
        run = await verify_collection(opened.settings, home, name, wanted)
        repaired += run.repaired
        if run.verdict == "equal":
            break
        progress(f"{name}: {run.found} differences, their repair is in flight; {run.unknown} parts were not read")
    else:
        raise TaskFailed(
            f"{name}: the stores are not equal after {_ROUNDS} repairs; the collection stays quarantined.",
            f"See what differs: crossfade verify {name}",
        )
    # At once: a worker that is stopped before its first check would not recognise the points.
    await record_witnesses(ports.ledger, name, await sample(ports.vectors, name))
    await CollectionState(ports.ledger, name).set_reason(None)
    progress(f"{name}: {run.legacy_documents} documents, both stores equal; it is active again")
    return Recaptured(name, ports.source_epoch, run.legacy_documents, repaired, time.monotonic() - started)


async def _drained(opened: Opened, name: str, progress: Progress) -> None:
    """Wait until what is in the topics now went through every role. Raises TaskFailed if no role takes a record."""
    capture = opened.collections[name].capture
    before: tuple[str, int] = ("", 0)
    moved = time.monotonic()

    def report(role: str, left: int) -> None:
        nonlocal before, moved
        if (role, left) != before:
            before, moved = (role, left), time.monotonic()
            progress(f"{name}: {left} records before {role}")
        elif time.monotonic() - moved > STILL_S:
            raise TaskFailed(
                f"{name}: no worker has taken a record as {role} for {STILL_S:.0f} s; {left} are left.",
                f"Start one (crossfade worker), then go on: crossfade recapture {name}",
            )

    async with KafkaOffsets(brokers_of(opened.settings.kafka), collection=name) as offsets:
        await drained(offsets, pipeline([capture.topic] if capture else []), _DRAIN_BOUND_S, report)
