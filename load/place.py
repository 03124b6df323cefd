"""The environment of whole-path benchmarks: a local stack, its collections, a worker process. Nothing is measured."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import asyncpg

from connectors.addresses import brokers_of
from connectors.kafka.bus import AiokafkaBus
from load.outcomes import Outcomes
from migration.preflight.tables import check_tables, prepare_topics
from operations.configuration import read_settings, resolve
from schemas.settings import Settings
from stack.layout import PartName
from stack.stack import LocalStack
from stack.worker import RunningWorker, worker_process

TEXTS = "bench_texts"
VECTORS = "bench_vectors"
ROWS = "bench_rows"
DIMENSION = 384
_PARTS: frozenset[PartName] = frozenset({"kafka", "connect", "postgres", "qdrant"})

_CONFIG = f"""
[kafka]
capture_prefix = "bench.capture"
[collections.{TEXTS}]
table = "{TEXTS}"
key = ["id"]
text = ["body"]
metadata = ["kind"]
[collections.{VECTORS}]
table = "{VECTORS}"
key = ["id"]
text = ["body"]
metadata = ["kind"]
embedding = {{ column = "embedding", format = "float32" }}
[collections.{ROWS}]
table = "{ROWS}"
key = ["id"]
text = ["body"]
embedding = {{ column = "embedding", format = "pgvector" }}
initial_load = "backfill"
"""

_TABLES = f"""
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE IF NOT EXISTS {TEXTS} (id text PRIMARY KEY, body text, kind text);
CREATE TABLE IF NOT EXISTS {VECTORS} (id text PRIMARY KEY, body text, kind text, embedding bytea);
CREATE TABLE IF NOT EXISTS {ROWS} (id bigint PRIMARY KEY, body text, embedding vector({DIMENSION}));
"""


Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"  # generic in the stubs only


@dataclass(frozen=True, slots=True)
class Place:
    """A running stack and worker, a producer, a reader of outcomes, and an application's database connection."""

    settings: Settings
    home: Path
    stack: LocalStack
    worker: RunningWorker
    bus: AiokafkaBus
    outcomes: Outcomes
    sql: Sql

    def pids(self) -> dict[str, int]:
        """Return the process id of each part and of the worker."""
        parts = {name: self.stack.part(name).pid for name in sorted(_PARTS)}
        return {"worker": self.worker.pid, **{name: pid for name, pid in parts.items() if pid is not None}}


def progress(text: str) -> None:
    """Print a progress message to stderr."""
    print(text, file=sys.stderr, flush=True)


@asynccontextmanager
async def place(home: Path, fill: Callable[[Sql], Awaitable[None]]) -> AsyncIterator[Place]:
    """Start everything in `home`, and stop it at the end. `fill` is called before changes of the tables are captured.

    Raises ProcessFailed if a part does not start.
    """
    stack = LocalStack(home, _PARTS)
    try:
        addresses = await stack.up(progress)
        config = home / "bench.toml"
        await asyncio.to_thread(config.write_text, _CONFIG)
        settings = resolve(read_settings(config, home, {}), addresses)
        sql = await asyncpg.connect(settings.collections[TEXTS].dsn)
        await sql.execute(_TABLES)
        await fill(sql)
        await check_tables(settings, progress, apply=True)
        await prepare_topics(settings, progress)
        bus = AiokafkaBus(settings.kafka)
        async with Outcomes(brokers_of(settings.kafka)) as outcomes, worker_process(config, home) as worker:
            yield Place(settings, home, stack, worker, bus, outcomes, sql)
        await bus.close()
        await sql.close()
    finally:
        progress("stopping everything")
        await stack.down()
