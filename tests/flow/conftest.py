"""The worker of all end-to-end tests: one process that serves every table of both databases and exports its traces."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from migration.opener import open_all
from schemas.settings import Connector
from stack.layout import StackAddresses
from tests.contract.legacy_places import DATABASES, Connection
from tests.flow.embedding_tables import DAMAGED_TABLES, EMBEDDING_TABLES
from tests.flow.foreign import Foreign
from tests.flow.otlp_receiver import span_receiver
from tests.flow.site import DOCUMENT_LINES, DOCUMENTS, Site, Store, Table, collection_name, document_rows
from tests.flow.worker_process import WorkerProcess, remedy, settings_of

ALTERED = "create table {t} (id int primary key, title varchar(40), body text, kind varchar(40), line int)"
# Limits that some dozens of questions on a busy machine keep, every one of which is compared.
ROLLED = """gates = { min_samples = 20, error_rate = 0.3, unequal_rate = 0.3, p95_ms = 1400, slow_share = 0.4 }
shadow = { rate = 1.0, per_second = 50, noise_share = 0.5 }
guards = { enabled = false }
"""
# No answer is as fast as this.
GUARDED = "gates = { p95_ms = 0.01 }\n"
TABLES = (
    *(Table("docs", connector, create, rows=document_rows(50)) for connector, create in DOCUMENTS.items()),
    *(Table("checked", connector, create, rows=document_rows(40)) for connector, create in DOCUMENTS.items()),
    *(Table("repaired", connector, create, rows=document_rows(40)) for connector, create in DOCUMENTS.items()),
    *(Table("inspected", connector, create, rows=document_rows(12)) for connector, create in DOCUMENTS.items()),
    *(
        Table("filled", connector, create, DOCUMENT_LINES + 'initial_load = "backfill"\n', document_rows(400))
        for connector, create in DOCUMENTS.items()
    ),
    Table(
        "moved", "postgres", DOCUMENTS["postgres"], DOCUMENT_LINES + 'initial_load = "backfill"\n', document_rows(30)
    ),
    *(
        Table("rolled", connector, create, DOCUMENT_LINES + ROLLED, document_rows(40))
        for connector, create in DOCUMENTS.items()
    ),
    Table("guarded", "postgres", DOCUMENTS["postgres"], DOCUMENT_LINES + GUARDED, document_rows(40)),
    *(Table("altered", connector, ALTERED, rows=("(17, 'seventeen', 'A row.', 'a', 1)",)) for connector in DATABASES),
    *EMBEDDING_TABLES,
    *DAMAGED_TABLES,
)


@pytest.fixture(scope="package")
async def site(
    stack: StackAddresses, stack_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    assert stack.mariadb is not None
    run = uuid.uuid4().hex[:6]
    config = tmp_path_factory.mktemp("flow") / "crossfade.toml"
    config.write_text(configuration(run))
    async with AsyncExitStack() as resources:
        connections: dict[Connector, Connection] = {
            "postgres": await Connection.open("postgres", stack.postgres),
            "mariadb": await Connection.open("mariadb", stack.mariadb),
        }
        for connection in connections.values():
            resources.push_async_callback(connection.close)
        await connections["postgres"].execute("create extension if not exists vector")
        for table in TABLES:
            name = collection_name(run, table.purpose, table.connector)
            await connections[table.connector].execute(table.create.replace("{t}", name))
            await connections[table.connector].execute(f"insert into {name} values {', '.join(table.rows)}")
        settings = settings_of(config, stack_home)
        await remedy(settings)
        foreign = Foreign(stack.kafka)
        resources.callback(foreign.close)
        spans = resources.enter_context(span_receiver())
        worker = WorkerProcess(config, stack_home, exporting_to(spans.endpoint))
        resources.push_async_callback(worker.stop)
        await worker.start()
        opened = await open_all(settings, stack_home, lambda _: None)
        resources.push_async_callback(opened.close)
        yield Site(config, stack_home, run, opened, worker, foreign, spans, connections)


def configuration(run: str) -> str:
    """Return the text of `crossfade.toml`. Its own capture prefix makes Debezium take a new snapshot."""
    parts = [f'[kafka]\ncapture_prefix = "flow.{run}"\n']
    for table in TABLES:
        name = collection_name(run, table.purpose, table.connector)
        parts.append(
            f'[collections.{name}]\nconnector = "{table.connector}"\ntable = "{name}"\nkey = ["id"]\n{table.lines}'
        )
    return "".join(parts)


def exporting_to(endpoint: str) -> dict[str, str]:
    """Return the standard variables that make a worker export all of its spans, and soon."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_BSP_MAX_QUEUE_SIZE": "65536",
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture(params=DATABASES)
def docs(site: Site, request: pytest.FixtureRequest) -> Store:
    """A collection of plain documents, on each database in turn."""
    return site.store("docs", request.param)
