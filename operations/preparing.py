"""What must be true before a worker starts: topics, table columns, connectors. Each step says what it did."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable
from urllib.parse import urlsplit

from connectors.kafka.admin import existing_topics, provision
from connectors.legacy_connector import apply_mend, check_legacy
from operations.connectors_api import ConnectClient, mariadb_connector, postgres_connector
from operations.context import WRONG_USE
from operations.errors import CommandError
from schemas.settings import Collection, Settings
from topics.provisioning import captured_table, desired_topics, plan

Progress = Callable[[str], None]
CONNECTOR_BOUND_S = 90.0


async def prepare_topics(settings: Settings, progress: Progress) -> None:
    """Create and widen what the catalogue says. Raises Misconfigured for a step that needs an operator's yes."""
    bootstrap = _bootstrap(settings)
    desired = desired_topics(settings)
    actions = plan(desired, await existing_topics(bootstrap, [topic.name for topic in desired]))
    await provision(bootstrap, actions)
    made = sum(action.kind == "create" for action in actions)
    if made:
        progress(f"{made} topics created")


async def check_tables(settings: Settings, progress: Progress, *, mend: bool) -> None:
    """Check every collection's database and table; with `mend`, execute the statements that mend them.

    Raises CommandError, as for wrong use, with what is wrong and the statement for it.
    """
    for name, collection in settings.collections.items():
        dsn = _dsn(name, collection)
        findings = await check_legacy(name, collection, dsn)
        errors = [finding for finding in findings if finding.level == "error"]
        if mend and errors:
            for statement in await apply_mend(dsn, errors):
                progress(f"{name}: {statement}")
            errors = [f for f in await check_legacy(name, collection, dsn) if f.level == "error"]
        if errors:
            said = "\n".join(f"  {f.subject}: {f.message}" + (f"\n    {f.mend}" if f.mend else "") for f in errors)
            raise CommandError(
                f"The collection {name} is not ready:\n{said}",
                "Run the statements, or let crossfade run them: crossfade config check --apply",
                WRONG_USE,
            )


async def follow_advice(settings: Settings, name: str, progress: Progress) -> None:
    """Execute what the check only warns of for a collection, where it names a statement: a full-text index, say."""
    collection = settings.collections[name]
    dsn = _dsn(name, collection)
    advised = [finding for finding in await check_legacy(name, collection, dsn) if finding.mend]
    for statement in await apply_mend(dsn, advised):
        progress(f"{name}: {statement}")


async def prepare_capture(settings: Settings, progress: Progress) -> None:
    """Register one Debezium connector for each database, and wait until it runs. Raises CommandError."""
    if settings.kafka.connect is None:
        raise CommandError("There is no Kafka Connect.", "Set kafka.connect, or run: crossfade up")
    databases: dict[tuple[str, str], list[Collection]] = defaultdict(list)
    for name, collection in settings.collections.items():
        databases[collection.connector, _dsn(name, collection)].append(collection)
    async with ConnectClient(settings.kafka.connect) as client:
        for (kind, dsn), collections in databases.items():
            name = connector_name(kind, dsn)
            await client.put_config(name, _connector(settings, kind, dsn, name, collections))
            await client.wait_running(name, CONNECTOR_BOUND_S)
            progress(f"capture of {kind} runs")


def connector_name(kind: str, dsn: str) -> str:
    """Return the name of the connector of a database: stable, and without the password."""
    parts = urlsplit(dsn)
    place = f"{parts.hostname}:{parts.port}{parts.path}"
    return f"crossfade-{kind}-{zlib.crc32(place.encode()):08x}"


def _connector(settings: Settings, kind: str, dsn: str, name: str, collections: list[Collection]) -> dict[str, str]:
    tables = sorted({captured_table(collection) for collection in collections})
    prefix = settings.kafka.capture_prefix
    if kind == "mariadb":
        return mariadb_connector(name, dsn, prefix, tables, bootstrap_servers=_bootstrap(settings))
    slot = name.replace("-", "_")
    return postgres_connector(name, dsn, prefix, tables, slot=slot, publication=slot)


def _bootstrap(settings: Settings) -> str:
    if settings.kafka.bootstrap is None:
        raise CommandError("There is no broker.", "Set kafka.bootstrap, or run: crossfade up")
    return settings.kafka.bootstrap


def _dsn(name: str, collection: Collection) -> str:
    if collection.dsn is None:
        raise CommandError(f"The collection {name} has no database.", "Set its dsn, or run: crossfade up")
    return collection.dsn
