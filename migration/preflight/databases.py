"""Finds collections whose addresses lead to the same table, or to a server and its copy, even if addresses differ."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict

from connectors.errors import CrossfadeError
from connectors.sql.database_identity import DatabaseIdentity, database_identity
from domain.legacy import Diagnostic, Setting
from migration.installation import Installation
from schemas.settings import Connector
from topics.provisioning import captured_table


async def check_databases(context: Installation) -> list[Diagnostic]:
    """Compare the databases behind the addresses. An unreachable one is left to the check of its own collection."""
    collections = context.settings.collections
    addresses = {name: (each.connector, each.dsn) for name, each in collections.items() if each.dsn is not None}
    asked = sorted(set(addresses.values()))
    found = dict(zip(asked, await asyncio.gather(*(_identity(*address) for address in asked)), strict=True))
    tables: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    servers: dict[str, dict[str, str]] = defaultdict(dict)
    for name, address in addresses.items():
        identity = found[address]
        if identity is not None and identity.space is not None and identity.key is not None:
            with contextlib.suppress(ValueError):  # the configuration check reports a table without a database
                tables[identity.space, captured_table(collections[name])][address[1]] = name
            servers[identity.key][identity.running] = name
    return _same_tables(tables) + _copies(servers)


async def _identity(connector: Connector, dsn: str) -> DatabaseIdentity | None:
    try:
        return await database_identity(connector, dsn)
    except (CrossfadeError, OSError):
        return None


def _same_tables(tables: dict[tuple[str, str], dict[str, str]]) -> list[Diagnostic]:
    return [
        Diagnostic(
            "error",
            table,
            f"by different addresses, this table is in more than one collection: {', '.join(names.values())}",
            Setting("crossfade.toml: leave one of them"),
        )
        for (_, table), names in tables.items()
        if len(names) > 1
    ]


def _copies(servers: dict[str, dict[str, str]]) -> list[Diagnostic]:
    return [
        Diagnostic(
            "error",
            ", ".join(names.values()),
            "their addresses lead to a server and to a copy of it",
            Setting("crossfade.toml: leave out those of one of the two servers"),
        )
        for names in servers.values()
        if len(names) > 1
    ]
