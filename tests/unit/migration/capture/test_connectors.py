"""When a connector's replication position counts as lost."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from connectors.kafka.connect import ConnectorState, ConnectorStatus
from domain.quarantine import Reason
from migration.capture.connectors import CAPTURING, Group, other_tables, quarantine_lost
from migration.quarantine import Quarantines
from schemas.settings import Kafka
from tests.unit.agents.parts import NAME, World
from tests.unit.connectors.kafka.test_connect import client_of
from topics.captures import Capture

GONE = "DebeziumException: Client requested master to start replication from a log that have been purged"


def status(state: ConnectorState, failure: str | None = None) -> ConnectorStatus:
    return ConnectorStatus("c", "MISSING" if state == "MISSING" else "RUNNING", (state,), failure)


@pytest.mark.parametrize(
    ("has_run", "now", "lost"),
    [
        (False, status("FAILED", GONE), True),
        (True, status("FAILED", GONE), True),
        (True, status("FAILED", "Connection refused"), False),
        (True, status("MISSING"), True),
        (False, status("MISSING"), False),
        (True, status("RUNNING"), False),
    ],
)
async def test_a_loss_that_the_connector_tells_counts_also_before_it_was_seen_to_run(
    has_run: bool, now: ConnectorStatus, lost: bool
) -> None:
    world = World()
    if has_run:
        await world.ports.ledger.set_meta(f"{CAPTURING}.{NAME}", 1)
    quarantines = Quarantines({NAME: world.ports}, world.ctx.telemetry, {NAME: world.ports.settings})
    group = Group("mariadb", "mysql://localhost/app", Capture(1, "p", "c", "app.t"), (world.ports,))
    assert await quarantine_lost(group, now, quarantines) is lost
    assert (world.legacy.recorded.get(f"halted.{NAME}") == Reason.CAPTURE_LOST) is lost


async def test_the_tables_that_a_connector_captures_for_others_are_known() -> None:
    ports = replace(World().ports, capture=Capture(1, "p", "c", "app.t"))
    group = Group("mariadb", "mysql://localhost/app", Capture(1, "p", "c", "app.t"), (ports,))
    kafka = Kafka(bootstrap="127.0.0.1:1")
    for tables, others in ((r"app\.t", []), (r"app\.t,app\.of_another", [r"app\.of_another"])):
        config = json.dumps({"topic.prefix": "p", "table.include.list": tables})
        async with client_of([(200, "application/json", config)]) as client:
            assert await other_tables(client, kafka, group) == others
