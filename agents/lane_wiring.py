"""Builds the lanes of a role from Kafka, Faust and the opened collections. What lanes do is in `agents.lanes`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from agents.batch import Message
from agents.lanes import LanePorts, Lanes
from agents.runner import RoleHealth, Runner
from agents.wiring import Agent
from connectors.addresses import brokers_of
from connectors.kafka.cursors import KafkaCursors
from connectors.kafka.reader import read_again
from connectors.telemetry import Telemetry
from migration.opener import Opened
from migration.quarantine import Quarantines
from schemas.records import Received, TopicPartition


def lanes_of(
    agent: Agent,
    collection_of: Callable[[Received], str],
    app: Any,
    health: RoleHealth,
    runner: Callable[[RoleHealth], Runner],
    opened: Opened,
    quarantines: Quarantines,
    telemetry: Telemetry,
    expired: Callable[[str, str], None],
) -> Lanes:
    """Return the lanes of a role; `runner` makes the runner of one lane, which updates the given health."""
    bootstrap = brokers_of(opened.settings.kafka)
    configured: Mapping[str, Any] = quarantines.configured or opened.collections
    ports = LanePorts(
        tuple(configured),
        lambda: opened.collections,
        lambda: runner(RoleHealth(agent.name)),
        collection_of,
        lambda record: Message(record, telemetry.received(record, agent.role.group)),
        KafkaCursors(bootstrap, agent.name),
        partial(read_again, bootstrap, limit=opened.settings.worker.batch),
        lambda: int(app.consumer_generation_id),
        lambda: _assigned(app),
        parks=agent.parks,
        away=lambda name, why: quarantines.away(name, agent.name, why),
        back=lambda name: quarantines.back(name, agent.name),
        expired=expired,
    )
    return Lanes(health, ports)


def _assigned(app: Any) -> set[TopicPartition]:
    consumer = app.consumer
    return {(at.topic, at.partition) for at in consumer.assignment()} if consumer is not None else set()
