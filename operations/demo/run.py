"""The demonstration: a filled table, a backfill by snapshot, producers, SQL and questions at once, then the proof.

Everything is measured while it happens. Only figures that were counted are printed.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from pydantic import BaseModel

from connectors.addresses import brokers_of
from connectors.kafka.bus import AiokafkaBus
from connectors.kafka.offsets import end_offsets
from connectors.kafka.reader import read_topic
from connectors.qdrant import open_vector_store
from migration.context import now_ms
from migration.preflight.tables import check_tables, follow_advice, prepare_topics
from migration.verify.options import Bounds, VerifyOptions
from migration.verify.result import Verification
from operations.clients.questions import Asker
from operations.configuration import resolve
from operations.demo.corpus import pages
from operations.demo.rollout import GATES, GUARDS, SHADOW, Rollout, roll_out
from operations.errors import CommandError
from schemas.cloudevents import InvalidEvent, decode, encode
from schemas.documents import DocumentSubmitted, DocumentWritten
from schemas.keys import document_key
from schemas.queries import QueryAnswered, QueryAsked
from schemas.records import Outgoing
from schemas.settings import Collection, Settings
from stack.stack import LocalStack
from stack.worker import worker_process
from topics.catalogue import SUBMITTED, WRITTEN

COLLECTION = "python_docs"
TABLE = "python_docs"
QUESTIONS = (
    "how do I parse command line arguments",
    "compress a file with gzip",
    "run a function in another process",
    "read a CSV file with a header",
    "wait until several coroutines have finished",
    "compute the median of a list of numbers",
)
DRAIN_BOUND_S = 180.0
Progress = Callable[[str], None]


@dataclass(slots=True)
class Report:
    """What the demonstration counted and measured. `_ms` fields are in milliseconds, `_s` fields in seconds."""

    documents: int = 0
    submitted: int = 0
    direct_writes: int = 0
    applied: int = 0
    superseded: int = 0
    dead_lettered: int = 0
    differences: int = 0
    questions: int = 0
    answered: int = 0
    backfill_s: float = 0.0
    total_s: float = 0.0
    freshness_ms: dict[str, float] = field(default_factory=dict)
    answer_ms: dict[str, float] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)
    rollout: Rollout = field(default_factory=Rollout)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99 of the values, or zeros if there are none."""
    ordered = sorted(values)
    at = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
    if not ordered:
        return dict.fromkeys(at, 0.0)
    return {name: round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 1) for name, q in at.items()}


def demo_settings() -> Settings:
    """Return the configuration of the demonstration, the same as in the file that `run_demo` writes to `home`."""
    collection = Collection(
        table=TABLE,
        key=("id",),
        text=("title", "body"),
        metadata=("kind", "module", "line"),
        gates=GATES,
        shadow=SHADOW,
        guards=GUARDS,
    )
    return Settings(collections={COLLECTION: collection})


def _inline(section: BaseModel) -> str:
    """Return what a section sets, as an inline table of TOML."""
    given = section.model_dump(exclude_defaults=True)
    return "{ " + ", ".join(f"{name} = {value}" for name, value in given.items()) + " }"


CONFIG_TEXT = f"""# The demonstration's configuration: see it as a first example of your own.
[collections.{COLLECTION}]
connector = "postgres"
table = "{TABLE}"
key = ["id"]
text = ["title", "body"]
metadata = ["kind", "module", "line"]
phase = "dual_write"
# A demonstration has no days: with these limits some dozens of questions are enough. The defaults need more.
gates = {_inline(GATES)}
shadow = {_inline(SHADOW)}
guards = {_inline(GUARDS)}
"""


async def run_demo(
    home: Path,
    documents: int,
    changes: int,
    verify: Callable[[Settings, Path, str, VerifyOptions], Any],
    progress: Progress,
    *,
    keep: bool,
) -> Report:
    """Run the demonstration. Leave nothing running unless `keep`. Raises TaskFailed if a part does not come up."""
    started = time.monotonic()
    report = Report()
    stack = LocalStack(home, frozenset({"kafka", "connect", "postgres", "qdrant"}))
    try:
        addresses = await stack.up(progress)
        settings = resolve(demo_settings(), addresses)
        config = home / "demo.toml"
        config.write_text(CONFIG_TEXT)
        dsn = settings.collections[COLLECTION].dsn or ""
        report.documents = await _fill(dsn, documents, progress)
        await check_tables(settings, progress, apply=True)
        await follow_advice(settings, COLLECTION, progress)
        await prepare_topics(settings, progress)
        begin = (await end_offsets(brokers_of(settings.kafka), [WRITTEN]))[WRITTEN]
        progress("the worker is starting (the first time it exports the model)")
        async with worker_process(config, home, keep=keep) as worker:
            progress(f"the worker is ready (process {worker.pid}, log {worker.log})")
            report.backfill_s = await _backfilled(settings, home, dsn, progress)
            await _live(settings, dsn, changes, begin, report, progress)
            run: Verification = await verify(settings, home, COLLECTION, VerifyOptions(Bounds(sample=50)))
            report.differences = run.found
            report.rollout = await _rolled_out(settings, dsn, stack, progress)
    finally:
        if not keep:
            progress("stopping everything")
            await stack.down()
    report.total_s = round(time.monotonic() - started, 1)
    return report


async def _rolled_out(settings: Settings, dsn: str, stack: LocalStack, progress: Progress) -> Rollout:
    """Move the collection to primary while rows change and questions are asked."""
    qdrant = stack.part("qdrant").pid
    if qdrant is None:
        raise CommandError("Qdrant's engine does not run.", "See: crossfade status")
    bus, sql = AiokafkaBus(settings.kafka), await asyncpg.connect(dsn)

    async def write(number: int) -> None:
        statement = f"UPDATE {TABLE} SET line = $1 WHERE id = (SELECT min(id) FROM {TABLE})"  # noqa: S608  # constants
        await sql.execute(statement, number)

    try:
        async with Asker(settings.kafka, bus) as asker:
            return await roll_out(settings, COLLECTION, asker, QUESTIONS, qdrant, write, progress)
    finally:
        await sql.close()
        await bus.close()


async def _fill(dsn: str, documents: int, progress: Progress) -> int:
    progress("reading the documentation of Python's standard library")
    found = await asyncio.to_thread(pages, documents)
    sql = await asyncpg.connect(dsn)
    try:
        await sql.execute(
            f"CREATE TABLE IF NOT EXISTS {TABLE} "
            "(id text PRIMARY KEY, title text NOT NULL, body text, kind text, module text, line integer)"
        )
        await sql.executemany(
            f"INSERT INTO {TABLE} (id, title, body, kind, module, line) "  # noqa: S608  # a constant name
            "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING",
            [(page.name, page.title, page.body, page.kind, page.module, page.line) for page in found],
        )
        count = int(await sql.fetchval(f"SELECT count(*) FROM {TABLE}"))  # noqa: S608  # a constant name
    finally:
        await sql.close()
    progress(f"the table {TABLE} holds {count} documents")
    return count


async def _backfilled(settings: Settings, home: Path, dsn: str, progress: Progress) -> float:
    """Wait until every row has its chunks in Qdrant. Return the seconds that this took."""
    started = time.monotonic()
    vectors = await open_vector_store(settings.qdrant, home)
    sql = await asyncpg.connect(dsn)
    try:
        last = -1
        moved = time.monotonic()
        while True:
            rows = int(await sql.fetchval(f"SELECT count(*) FROM {TABLE}"))  # noqa: S608  # a constant name
            done = int(
                await sql.fetchval(
                    "SELECT count(*) FROM crossfade_ledger WHERE collection = $1 AND vector_version > 0 "
                    "AND chunk_count > 0",
                    COLLECTION,
                )
            )
            if done != last:
                last, moved = done, time.monotonic()
                took = time.monotonic() - started
                rate = f", {done / took:.0f}/s" if took > 1 else ""
                progress(f"backfill: {done} of {rows} documents in Qdrant{rate}")
            if done >= rows:
                return round(time.monotonic() - started, 1)
            if time.monotonic() - moved > DRAIN_BOUND_S:
                raise CommandError("the backfill does not go on", "See the worker's log.")
            await asyncio.sleep(2.0)
    finally:
        await sql.close()
        await vectors.close()


async def _live(
    settings: Settings, dsn: str, changes: int, begin: dict[int, int], report: Report, progress: Progress
) -> None:
    """Publish, write by SQL and ask at the same time. Then wait until every published event has its outcomes."""
    bus = AiokafkaBus(settings.kafka)
    sql = await asyncpg.connect(dsn)
    try:
        ids = [row["id"] for row in await sql.fetch(f"SELECT id FROM {TABLE} ORDER BY id")]  # noqa: S608
        rng = random.Random(7)  # noqa: S311  # the same documents change in every run
        chosen = rng.sample(ids, min(len(ids), 2 * changes))
        causes: set[str] = set()
        async with Asker(settings.kafka, bus) as asker:
            progress(f"publishing {changes} events, writing {changes // 2} rows by SQL, and asking, at the same time")
            await asyncio.gather(
                _publish(bus, chosen[:changes], causes),
                _write_sql(sql, chosen[changes : changes + changes // 2]),
                _ask(asker, report),
            )
        report.submitted = len(causes)
        report.direct_writes = min(changes // 2, len(chosen[changes:]))
        await _outcomes(settings, causes, begin, report, progress)
    finally:
        await sql.close()
        await bus.close()


async def _publish(bus: AiokafkaBus, ids: Sequence[str], causes: set[str]) -> None:
    """Publish changed, new and deleted documents, about 50 a second."""
    for number, document_id in enumerate(ids):
        event_id = uuid.uuid4().hex
        causes.add(event_id)
        kind = number % 10
        if kind == 9:
            key = document_key(COLLECTION, document_id)
            await bus.publish([Outgoing(SUBMITTED, key.encode(), None, (("ce_id", event_id.encode()),))])
        else:
            new = kind in (7, 8)
            event = DocumentSubmitted(
                collection=COLLECTION,
                id=f"demo.note.{number}" if new else document_id,
                text={
                    "title": f"Note {number} on {document_id}",
                    "body": f"A producer wrote this about {document_id}.",
                },
                metadata={"kind": "note", "module": document_id.split(".", maxsplit=1)[0], "line": number},
            )
            record = encode(
                event,
                topic=SUBMITTED,
                key=document_key(COLLECTION, event.id),
                event_id=event_id,
                source="crossfade/demo",
                time_ms=now_ms(),
            )
            await bus.publish([record])
        await asyncio.sleep(0.02)


async def _write_sql(sql: asyncpg.Connection[asyncpg.Record], ids: Sequence[str]) -> None:
    """Change and delete rows, as an application that knows nothing of crossfade would."""
    for number, document_id in enumerate(ids):
        if number % 5 == 4:
            await sql.execute(f"DELETE FROM {TABLE} WHERE id = $1", document_id)  # noqa: S608  # a constant name
        else:
            statement = f"UPDATE {TABLE} SET body = body || $2 WHERE id = $1"  # noqa: S608  # a constant name
            await sql.execute(statement, document_id, "\n\nThe application changed this row itself.")
        await asyncio.sleep(0.04)


async def _ask(asker: Asker, report: Report) -> None:
    took: list[float] = []
    for turn in range(10):
        for text in QUESTIONS:
            for route in ("legacy", "qdrant"):
                report.questions += 1
                query = QueryAsked(id=uuid.uuid4().hex, collection=COLLECTION, text=text, limit=3, route=route)
                started = time.perf_counter()
                try:
                    answered: QueryAnswered = await asker.ask(query, 20.0)
                except TimeoutError:
                    continue
                took.append((time.perf_counter() - started) * 1000)
                report.answered += answered.error is None
                if turn == 0:
                    best = answered.hits[0].document_id if answered.hits else None
                    report.examples.append({"question": text, "served_by": answered.served_by, "best": best})
    report.answer_ms = percentiles(took)


async def _outcomes(
    settings: Settings, causes: set[str], begin: dict[int, int], report: Report, progress: Progress
) -> None:
    """Read the outcomes of every published event in both stores, until all are there."""
    outcomes: dict[tuple[str, str | None], DocumentWritten] = {}
    deadline = time.monotonic() + DRAIN_BOUND_S
    while time.monotonic() < deadline:
        async for record in read_topic(brokers_of(settings.kafka), WRITTEN, start=begin):
            try:
                event, _ = decode(record, DocumentWritten)
            except InvalidEvent:
                continue
            if event.cause in causes:
                outcomes[event.cause, event.store] = event
        open_ = [
            cause
            for cause in causes
            if (cause, None) not in outcomes and not {(cause, "legacy"), (cause, "qdrant")} <= outcomes.keys()
        ]
        progress(f"{len(causes) - len(open_)} of {len(causes)} events have come to an end in both stores")
        if not open_:
            break
        await asyncio.sleep(1.0)
    for cause in causes:
        both = [outcome for (of, _), outcome in outcomes.items() if of == cause]
        kinds = {outcome.outcome for outcome in both}
        if "dead_lettered" in kinds:
            report.dead_lettered += 1
        elif kinds == {"applied"} and len(both) == 2:
            report.applied += 1
        elif kinds:
            report.superseded += 1
    fresh = [o.latency_ms for (_, store), o in outcomes.items() if store == "qdrant" and o.outcome == "applied"]
    report.freshness_ms = percentiles(fresh)
