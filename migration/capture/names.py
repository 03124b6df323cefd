"""Gives each collection the names of its capture, and finds collections that cannot be captured as they are.

A source epoch is used once in a database: a collection that was never captured gets the next one, whatever is
configured now, with a connector, a slot and topics that no other capture had. The names assigned first are recorded and
stay: workers that start at the same time all end with them, and no connector is made before that.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from connectors.errors import CrossfadeError
from connectors.ports import Ledger
from connectors.sql.database_identity import DatabaseIdentity, database_identity
from domain.quarantine import Quarantine, Reason
from migration.collection import CollectionPorts
from migration.opener import Opened
from migration.state import CollectionState
from schemas.settings import INITIAL_LOADS, Kafka
from topics.captures import Capture, capture_base, epoch_of_topic, new_capture

Progress = Callable[[str], None]
# The highest source epoch ever assigned under a base of names, as `source_epochs.BASE`.
_HIGHEST = "source_epochs"
_IDENTITY = "database"


@dataclass(frozen=True, slots=True)
class Database:
    """The collections of one database, whatever their addresses; `key` distinguishes it from every other database."""

    key: str
    members: tuple[str, ...]
    identities: Mapping[str, DatabaseIdentity]


async def databases_of(
    collections: Mapping[str, CollectionPorts],
) -> tuple[list[Database], dict[str, CrossfadeError]]:
    """Return the collections by database and, for the others, the error that prevented identifying theirs."""
    # Concurrently: a database that is away takes its whole time limit.
    places = {(ports.settings.connector, ports.settings.dsn or "") for ports in collections.values()}
    asked = sorted(places)
    answers = await asyncio.gather(*(database_identity(*place) for place in asked), return_exceptions=True)
    by_address = dict(zip(asked, answers, strict=True))
    found: dict[str, dict[str, DatabaseIdentity]] = defaultdict(dict)
    away: dict[str, CrossfadeError] = {}
    for name, ports in sorted(collections.items()):
        identity = by_address[ports.settings.connector, ports.settings.dsn or ""]
        if isinstance(identity, CrossfadeError):
            away[name] = identity
            continue
        if isinstance(identity, BaseException):
            raise identity
        try:
            found[identity.key or await _given_identity(ports.ledger)][name] = identity
        except CrossfadeError as error:
            away[name] = error
    return [Database(key, tuple(members), members) for key, members in found.items()], away


async def _given_identity(ledger: Ledger) -> str:
    """Return the identity that was first assigned to a database that does not report one."""
    return await ledger.claim_identity(_IDENTITY, uuid.uuid4().hex)


async def assign_captures(
    opened: Opened, databases: Sequence[Database], existing: Sequence[str], progress: Progress
) -> dict[str, CrossfadeError]:
    """Assign capture names to each collection that was never captured; record names that are not recorded yet.

    Debezium reads a table that is added to a running connector only from then on. A new collection therefore needs a
    connector that begins with it, and with a snapshot unless a backfill brings its rows. Collections that are added
    together share a connector if they have one role, which may read all of their tables.

    Returns, for each collection left without names, the error that prevented them: a database fails alone.
    """
    failed: dict[str, CrossfadeError] = {}
    for database in databases:
        try:
            await _assign_all(opened, database, existing, progress)
        except CrossfadeError as error:
            failed |= {name: error for name in database.members if opened.collections[name].capture is None}
    return failed


async def _assign_all(opened: Opened, database: Database, existing: Sequence[str], progress: Progress) -> None:
    ports = {name: opened.collections[name] for name in database.members}
    for name, each in ports.items():
        if each.capture is not None:
            await CollectionState(each.ledger, name).claim_capture(each.capture.epoch, each.capture)
    new = [name for name, each in ports.items() if each.capture is None]
    for names in _together(new, ports, database):
        for name, capture in (await _assigned(opened.settings.kafka, database, ports, names, existing)).items():
            # Replaced from the current entry, to keep what a watch may have changed in it meanwhile.
            ports[name] = opened.collections[name] = replace(opened.collections[name], capture=capture)
            if capture.epoch > 1:
                initial_load = ports[name].settings.initial_load
                progress(
                    f"{name} was never captured: it gets a connector of its own, which begins with a {initial_load}"
                )


async def _assigned(
    kafka: Kafka,
    database: Database,
    ports: Mapping[str, CollectionPorts],
    names: Sequence[str],
    existing: Sequence[str],
) -> dict[str, Capture]:
    """Return the names under which new collections are captured together: ours, or those of a faster worker."""
    own = await next_epoch(kafka, database, ports, existing)
    base = capture_base(kafka, database.key)
    for name in names:
        # Record all names before claiming an epoch: a worker that loses it sees here which others go with it.
        kind, place = ports[name].settings.connector, ports[name].table.description.place
        capture = new_capture(kafka, kind, base, own, place)
        await CollectionState(ports[name].ledger, name).claim_capture(own, capture)
    found: dict[str, Capture] = {}
    epoch = own
    for name in names:
        ledger, collection = ports[name].ledger, ports[name].settings
        if not await CollectionState(ledger, name).has_capture(epoch):
            epoch = own
        epoch = await CollectionState(ledger, name).claim_source_epoch(epoch)
        given = await CollectionState(ledger, name).capture(kafka, collection)
        if given is not None:
            found[name] = given
    return found


def _together(new: Sequence[str], ports: Mapping[str, CollectionPorts], database: Database) -> list[list[str]]:
    """Return the collections that share a connector: those with one role and one kind of initial load.

    Collections that a backfill loads are separate: a MariaDB connector knows no table that its snapshot leaves out.
    """
    found: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name in new:
        found[INITIAL_LOADS.index(ports[name].settings.initial_load), database.identities[name].role].append(name)
    return [names for _, names in sorted(found.items())]


async def next_epoch(
    kafka: Kafka, database: Database, ports: Mapping[str, CollectionPorts], existing: Iterable[str]
) -> int:
    """Return a source epoch never used in a database nor assigned to anybody else, and record that it is used.

    The current configuration is not enough: removed collections have left topics, and connectors with finished
    snapshots. If the records of the remaining collections do not show them, the topics do.
    """
    base = capture_base(kafka, database.key)
    used = [each.source_epoch for each in ports.values() if each.capture is not None]
    used += [await each.ledger.get_meta(f"{_HIGHEST}.{base}") or 0 for each in ports.values()]
    used += [epoch_of_topic(kafka, base, topic) for topic in existing]
    first, *others = (ports[name].ledger for name in sorted(ports))
    await first.raise_to(f"{_HIGHEST}.{base}", max(used))
    epoch = await first.advance(f"{_HIGHEST}.{base}")
    for ledger in others:
        await ledger.raise_to(f"{_HIGHEST}.{base}", epoch)
    return epoch


def conflicts(collections: Mapping[str, CollectionPorts], databases: Sequence[Database]) -> list[Quarantine]:
    """Return the collections that cannot be captured next to each other, or whose table is not the captured one."""
    found: list[Quarantine] = []
    for database in databases:
        found += _copies(database) + _same_tables(collections, database)
    found += _moved(collections)
    return found + _same_topics(collections, databases)


def _copies(database: Database) -> list[Quarantine]:
    """Find copies of a server. A copy has the server's identity: two that run cannot be distinguished by records."""
    first = next(iter(database.identities.values()))
    text = "its address leads to a copy of the server of another collection: one of them must be left out"
    return [
        Quarantine(name, Reason.TABLE, text)
        for name, each in database.identities.items()
        if each.running != first.running
    ]


def _same_tables(collections: Mapping[str, CollectionPorts], database: Database) -> list[Quarantine]:
    first: dict[str, str] = {}
    found = []
    for name in database.members:
        place = collections[name].table.description.place
        other = first.setdefault(place, name)
        if other != name:
            found.append(Quarantine(name, Reason.TABLE, f"the table {place} is that of the collection {other}"))
    return found


def _moved(collections: Mapping[str, CollectionPorts]) -> list[Quarantine]:
    return [
        Quarantine(name, Reason.TABLE_REPLACED, f"{ports.capture.table} is captured, the configuration means {place}")
        for name, ports in collections.items()
        if ports.capture is not None and (place := ports.table.description.place) != ports.capture.table
    ]


def _same_topics(collections: Mapping[str, CollectionPorts], databases: Sequence[Database]) -> list[Quarantine]:
    """Find captures that share a topic with another database's: those begun before names were made of identities."""
    keys = {name: each.key for each in databases for name in each.members}
    places = {name: (key, collections[name].table.description.place) for name, key in keys.items()}
    sharing: dict[str, list[str]] = defaultdict(list)
    for name, ports in collections.items():
        if ports.capture is not None and name in places:
            sharing[ports.capture.topic].append(name)
    return [
        Quarantine(
            name, Reason.FOREIGN_CHANGE, f"the topic {topic} is also that of {', '.join(sorted({*names} - {name}))}"
        )
        for topic, names in sharing.items()
        if len({places[name] for name in names}) > 1
        for name in names
    ]
