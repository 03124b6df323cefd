"""Gives each collection the names of its capture, and finds collections that cannot be captured as they are.

A source epoch is used once in a database: a collection that was never captured gets the next one, whatever is
configured now, with a connector, a slot and topics that no other capture had. What was given is recorded and stays.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agents.assembly import CAPTURE, Opened, record_capture
from agents.batch import CollectionPorts
from connectors.database_identity import DatabaseIdentity, database_identity
from connectors.ports import Ledger
from domain.halts import Halt, Reason
from schemas.settings import FILLS, Kafka
from topics.captures import Capture, capture_base, epoch_of_topic, new_capture

Progress = Callable[[str], None]
# The highest source epoch that was ever given under a base of names, as `source_epochs.BASE`.
_HIGHEST = "source_epochs"
_IDENTITY = "database"


@dataclass(frozen=True, slots=True)
class Database:
    """The collections of one database, by whatever address; `key` is what tells it from every other."""

    key: str
    members: tuple[str, ...]
    identities: Mapping[str, DatabaseIdentity]


async def databases_of(collections: Mapping[str, CollectionPorts]) -> list[Database]:
    """Return the collections by their databases. Raises Misconfigured, StoreUnavailable."""
    by_address: dict[str, DatabaseIdentity] = {}
    found: dict[str, dict[str, DatabaseIdentity]] = defaultdict(dict)
    for name, ports in sorted(collections.items()):
        dsn = ports.settings.dsn or ""
        if dsn not in by_address:
            by_address[dsn] = await database_identity(ports.settings.connector, dsn)
        identity = by_address[dsn]
        found[identity.key or await _given_identity(ports.ledger)][name] = identity
    return [Database(key, tuple(members), members) for key, members in found.items()]


async def _given_identity(ledger: Ledger) -> str:
    """Return what a database that does not say who it is was called first."""
    found = await ledger.identity(_IDENTITY)
    if found is None:
        found = uuid.uuid4().hex
        await ledger.set_identity(_IDENTITY, found)
    return found


async def assign_captures(
    opened: Opened, databases: Sequence[Database], existing: Sequence[str], progress: Progress
) -> None:
    """Give each collection that was never captured the names of its capture; record those that are not recorded yet.

    Debezium reads a table that is added to a running connector from then on only: a new collection needs a connector
    that begins with it, and with a snapshot unless a backfill brings its rows. Those that come together share one where
    they have one role, which may read the tables of all.
    """
    for database in databases:
        ports = {name: opened.collections[name] for name in database.members}
        for name, each in ports.items():
            if each.capture is not None and await each.ledger.identity(_recorded_as(name, each.capture)) is None:
                await record_capture(each.ledger, name, each.capture)
        new = [name for name, each in ports.items() if each.capture is None]
        for names in _together(new, ports, database):
            epoch = await next_epoch(opened.settings.kafka, database, ports, existing)
            base = capture_base(opened.settings.kafka, database.key)
            for name in names:
                kind, place = ports[name].settings.connector, ports[name].table.description.place
                capture = new_capture(opened.settings.kafka, kind, base, epoch, place)
                await record_capture(ports[name].ledger, name, capture)
                ports[name] = opened.collections[name] = replace(ports[name], capture=capture)
                if epoch > 1:
                    fill = ports[name].settings.fill
                    progress(f"{name} was never captured: it gets a connector of its own, which begins with a {fill}")


def _recorded_as(name: str, capture: Capture) -> str:
    return f"{CAPTURE}.{name}.e{capture.epoch}"


def _together(new: Sequence[str], ports: Mapping[str, CollectionPorts], database: Database) -> list[list[str]]:
    """Return the collections that share a connector: of one role, and filled in one way.

    Those that a backfill fills are apart: a MariaDB connector knows no table that its snapshot leaves out.
    """
    found: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name in new:
        found[FILLS.index(ports[name].settings.fill), database.identities[name].role].append(name)
    return [names for _, names in sorted(found.items())]


async def next_epoch(
    kafka: Kafka, database: Database, ports: Mapping[str, CollectionPorts], existing: Iterable[str]
) -> int:
    """Return a source epoch that was never used in a database, and record that it is used.

    What is configured now says too little: collections that were removed have left connectors with finished snapshots,
    and topics. Where the records of those that are left do not know them, the topics do.
    """
    base = capture_base(kafka, database.key)
    used = [each.source_epoch for each in ports.values() if each.capture is not None]
    used += [await each.ledger.recorded(f"{_HIGHEST}.{base}") or 0 for each in ports.values()]
    used += [epoch_of_topic(kafka, base, topic) for topic in existing]
    epoch = max(used) + 1
    for each in ports.values():
        await each.ledger.record(f"{_HIGHEST}.{base}", epoch)
    return epoch


def conflicts(collections: Mapping[str, CollectionPorts], databases: Sequence[Database]) -> list[Halt]:
    """Return the collections that cannot be captured beside each other, or no longer from where they are."""
    found: list[Halt] = []
    for database in databases:
        found += _copies(database) + _same_tables(collections, database)
    found += _moved(collections)
    return found + _same_topics(collections, databases)


def _copies(database: Database) -> list[Halt]:
    """A copy of a server has its identity: two that run cannot be told apart by what is recorded."""
    first = next(iter(database.identities.values()))
    said = "its address leads to a copy of the server of another collection: one of them must be left out"
    return [
        Halt(name, Reason.TABLE, said) for name, each in database.identities.items() if each.running != first.running
    ]


def _same_tables(collections: Mapping[str, CollectionPorts], database: Database) -> list[Halt]:
    first: dict[str, str] = {}
    found = []
    for name in database.members:
        place = collections[name].table.description.place
        other = first.setdefault(place, name)
        if other != name:
            found.append(Halt(name, Reason.TABLE, f"the table {place} is that of the collection {other}"))
    return found


def _moved(collections: Mapping[str, CollectionPorts]) -> list[Halt]:
    return [
        Halt(name, Reason.TABLE_REPLACED, f"{ports.capture.table} is captured, the configuration means {place}")
        for name, ports in collections.items()
        if ports.capture is not None and (place := ports.table.description.place) != ports.capture.table
    ]


def _same_topics(collections: Mapping[str, CollectionPorts], databases: Sequence[Database]) -> list[Halt]:
    """Captures that began before names were made of identities may share a topic with another database's."""
    keys = {name: each.key for each in databases for name in each.members}
    places = {name: (key, collections[name].table.description.place) for name, key in keys.items()}
    sharing: dict[str, list[str]] = defaultdict(list)
    for name, ports in collections.items():
        if ports.capture is not None and name in places:
            sharing[ports.capture.topic].append(name)
    return [
        Halt(name, Reason.FOREIGN_CHANGE, f"the topic {topic} is also that of {', '.join(sorted({*names} - {name}))}")
        for topic, names in sharing.items()
        if len({places[name] for name in names}) > 1
        for name in names
    ]
