"""Reads the facts from which the plan of a collection's move is made. Changes nothing."""

from __future__ import annotations

from connectors.sql.connector import LegacyConnector
from migration.capture.connectors import captured_epoch
from migration.installation import Installation
from migration.observe import Observer, answered
from migration.plan import Facts
from migration.preflight.checks import check_all


async def facts_of(context: Installation, name: str) -> Facts:
    """Return what is known of a collection, including the mistakes in its configuration."""
    observer = Observer(context.settings)

    async def table(legacy: LegacyConnector) -> tuple[bool, int]:
        captured = await captured_epoch(legacy.ledger, name) is not None
        return captured, await legacy.bulk.estimated_rows()

    try:
        (progress,) = await observer.look([name])
        (found, _) = await answered(observer.databases.ask(name, table))
    finally:
        await observer.close()
    captured, rows = found or (False, None)
    others = set(context.settings.collections) - {name}
    findings = [each for part in await check_all(context) if part.part not in others for each in part.findings]
    return Facts(progress, findings, context.settings.collections[name].initial_load, captured, rows)
