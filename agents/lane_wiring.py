"""Gives a role its lanes over Kafka, Faust and the collections that are opened. What lanes do is in `agents.lanes`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from agents.batch import Message
from agents.lanes import LanePorts, Lanes, Place
from agents.runner import RoleHealth, Runner
from agents.wiring import RoleName
from connectors.addresses import brokers_of
from connectors.kafka.cursors import KafkaCursors
from connectors.kafka.tail import read_again
from connectors.telemetry import Telemetry
from domain.keys import parse_key
from migration.collection import Opened
from migration.quarantine import Halts
from schemas.cloudevents import unwrap
from schemas.records import Received
from topics.catalogue import group_of

# Of the others capture's topics are of one collection each, and a question waits for nobody.
LANED: tuple[RoleName, ...] = ("intake", "resolver", "legacy", "embedder", "vector")
# These use the database of a collection.
PARKING: tuple[RoleName, ...] = ("resolver", "legacy", "vector")


class _Named(msgspec.Struct):
    collection: str


_NAMED = msgspec.json.Decoder(_Named)


def lanes_of(
    role: RoleName,
    app: Any,
    health: RoleHealth,
    runner: Callable[[RoleHealth], Runner],
    opened: Opened,
    halts: Halts,
    telemetry: Telemetry,
    expired: Callable[[str, str], None],
) -> Lanes:
    """Return the lanes of a role; `runner` makes the runner of one of them, which keeps the given health."""
    bootstrap = brokers_of(opened.settings.kafka)
    configured: Mapping[str, Any] = halts.configured or opened.collections
    ports = LanePorts(
        tuple(configured),
        lambda: opened.collections,
        lambda: runner(RoleHealth(role)),
        submitted_to if role == "intake" else named_by_key,
        lambda record: Message(record, telemetry.received(record, group_of(role))),
        KafkaCursors(bootstrap, role),
        partial(read_again, bootstrap, limit=opened.settings.worker.batch),
        lambda: int(app.consumer_generation_id),
        lambda: _assigned(app),
        parks=role in PARKING,
        away=lambda name, why: halts.away(name, role, why),
        back=lambda name: halts.back(name, role),
        expired=expired,
    )
    return Lanes(health, ports)


def _assigned(app: Any) -> set[Place]:
    consumer = app.consumer
    return {(at.topic, at.partition) for at in consumer.assignment()} if consumer is not None else set()


def named_by_key(record: Received) -> str:
    """Return the collection of a record of a working topic, the empty text where its key names none."""
    try:
        return parse_key(record.key or b"")[0]
    except ValueError:
        return ""


def submitted_to(record: Received) -> str:
    """Return the collection of a producer's record, whose key may be anything; the empty text where it names none.

    This runs outside of a runner, so that an error would end the role: a record that cannot be read, for whatever
    reason, is of no collection, and the runner of those makes a dead letter of it.
    """
    try:
        _, data = unwrap(record)
        return named_by_key(record) if data is None else _NAMED.decode(data).collection
    except Exception:
        return ""
