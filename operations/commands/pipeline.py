"""`crossfade worker`, `submit`, `ask` and `verify`: the pipeline. What they do is done elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, cast, get_args

import orjson
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from agents.assembly import open_all
from agents.batch import Surroundings
from agents.wiring import ROLES, RoleName
from agents.worker import now_ms
from connectors.kafka.bus import AiokafkaBus
from connectors.telemetry import Telemetry
from operations.asking import Asker
from operations.configuration import read_settings, resolve
from operations.errors import CommandError
from operations.running import run_worker
from operations.stack.layout import default_home, read_addresses
from operations.verifying import Bounds, Verification
from operations.verifying import verify as run_verify
from schemas.cloudevents import encode
from schemas.documents import DocumentSubmitted
from schemas.queries import Backend, QueryAnswered, QueryAsked
from schemas.records import Outgoing
from schemas.settings import Settings
from topics.catalogue import SUBMITTED

app = typer.Typer(no_args_is_help=True, add_completion=False)
_errors = Console(stderr=True, highlight=False)

ConfigOption = Annotated[Path | None, typer.Option("--config", help="The configuration file.")]
HomeOption = Annotated[
    Path | None, typer.Option("--home", help="Folder of data, logs and state.", envvar="CROSSFADE_HOME")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
CollectionOption = Annotated[str | None, typer.Option("--collection", help="Which collection, if there are several.")]
DIFFERENCES_FOUND = 3


def _progress(text: str) -> None:
    _errors.print(text, markup=False, soft_wrap=True)


def _load(config: Path | None, home: Path | None) -> tuple[Settings, Path]:
    place = home or default_home()
    return resolve(read_settings(config, place, os.environ), read_addresses(place)), place


def _the_collection(settings: Settings, name: str | None) -> str:
    names = list(settings.collections)
    if name in names:
        return str(name)
    if name is None and len(names) == 1:
        return names[0]
    wrong = f"there is no collection {name!r}" if name else "which collection?"
    raise CommandError(wrong, f"Configured: {', '.join(names) or 'none'}.", exit_code=2)


@app.command()
def worker(
    roles: Annotated[str, typer.Option(help=f"Roles, separated by commas: {', '.join(ROLES)}.")] = ",".join(ROLES),
    ready_file: Annotated[Path | None, typer.Option(help="Written when every agent consumes.", hidden=True)] = None,
    config: ConfigOption = None,
    home: HomeOption = None,
) -> None:
    """Run the agents until SIGTERM or Ctrl-C, then finish what is in flight."""
    chosen = [role.strip() for role in roles.split(",") if role.strip()]
    unknown = sorted(set(chosen) - set(get_args(RoleName)))
    if unknown or not chosen:
        raise CommandError(f"unknown role {', '.join(unknown)}", f"Roles: {', '.join(ROLES)}.", exit_code=2)
    settings, place = _load(config, home)
    uvloop.run(run_worker(settings, place, cast("list[RoleName]", chosen), _progress, ready_file))


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="Events, one JSON object a line; - reads standard input.")],
    config: ConfigOption = None,
    home: HomeOption = None,
) -> None:
    """Publish documents as a producer would. A line {"collection": …, "id": …, "delete": true} deletes."""
    settings, _ = _load(config, home)
    print(asyncio.run(_submit(settings, file)))


async def _submit(settings: Settings, file: Path) -> int:
    bus = AiokafkaBus(settings.kafka)
    count, chunk = 0, 500
    try:
        with _errors.status("submitting") as status:
            batch: list[Outgoing] = []
            for number, line in _lines(file):
                batch.append(submission_record(number, line))
                if len(batch) == chunk:
                    await bus.publish(batch)
                    count += len(batch)
                    batch = []
                    status.update(f"submitted {count}")
            await bus.publish(batch)
            count += len(batch)
    finally:
        await bus.close()
    return count


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with sys.stdin.buffer if str(file) == "-" else file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror or error}", exit_code=2) from error


def submission_record(number: int, line: bytes) -> Outgoing:
    """Return the record of one line of a submission file. Raises CommandError naming the line."""
    try:
        data = orjson.loads(line)
        key = f"{data['collection']}/{data['id']}"
        if data.get("delete") is True:
            return Outgoing(SUBMITTED, key.encode(), None, (("ce_id", uuid.uuid4().hex.encode()),))
        event = DocumentSubmitted.model_validate(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CommandError(f"line {number} is not a document: {error}", exit_code=2) from error
    return encode(
        event, topic=SUBMITTED, key=key, event_id=uuid.uuid4().hex, source="crossfade/submit", time_ms=now_ms()
    )


@app.command()
def ask(
    text: Annotated[str, typer.Argument(help="The question.")],
    collection: CollectionOption = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 5,
    route: Annotated[str | None, typer.Option(help="Force a backend: legacy or qdrant.")] = None,
    tenant: Annotated[str, typer.Option()] = "default",
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the answer.")] = 15.0,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    home: HomeOption = None,
) -> None:
    """Ask a question over Kafka and print the answer."""
    if route not in (None, *get_args(Backend)):
        raise CommandError(f"there is no backend {route!r}", f"Backends: {', '.join(get_args(Backend))}.", exit_code=2)
    settings, _ = _load(config, home)
    query = QueryAsked(
        id=uuid.uuid4().hex,
        collection=_the_collection(settings, collection),
        tenant=tenant,
        text=text,
        limit=limit,
        route=cast("Backend | None", route),
    )
    answered = asyncio.run(_ask(settings, query, timeout_s))
    if as_json:
        print(answered.model_dump_json())
    else:
        print_answer(answered)
    if answered.error:
        raise typer.Exit(1)


async def _ask(settings: Settings, query: QueryAsked, timeout_s: float) -> QueryAnswered:
    bus = AiokafkaBus(settings.kafka)
    try:
        async with Asker(settings.kafka, bus) as asker:
            return await asker.ask(query, timeout_s)
    except TimeoutError:
        raise CommandError(
            f"no answer within {timeout_s:.0f} s", "Does a worker with the role query run? crossfade worker"
        ) from None
    finally:
        await bus.close()


def print_answer(answered: QueryAnswered) -> None:
    """Print an answer for people."""
    console = Console(highlight=False)
    if answered.error:
        console.print(f"no backend could answer: {answered.error}", markup=False)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("score", "document", "text"):
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for hit in answered.hits:
        table.add_row(f"{hit.score:.3f}", hit.document_id, " ".join(hit.text.split())[:100])
    console.print(table)
    degraded = ", degraded" if answered.degraded else ""
    console.print(f"from {answered.served_by}{degraded}, {answered.timings_ms.get('total', 0):.1f} ms", style="dim")


@app.command()
def verify(
    collection: Annotated[str, typer.Argument(help="Which collection.")],
    repair: Annotated[bool, typer.Option("--repair", help="Append a refresh entry for each difference.")] = False,
    settle_s: Annotated[float, typer.Option("--settle", help="Seconds before a difference is looked at again.")] = 2.0,
    page: Annotated[int, typer.Option(min=1, max=10_000, help="Documents read at a time.")] = 500,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    home: HomeOption = None,
) -> None:
    """Compare every document of the legacy table with Qdrant, both ways. Exit code 3 when they differ."""
    settings, place = _load(config, home)
    name = _the_collection(settings, collection)
    started = time.monotonic()
    run = asyncio.run(verify_collection(settings, place, name, Bounds(page, settle_s), repair=repair))
    if as_json:
        print(json.dumps(summary(run, time.monotonic() - started)))
    else:
        print_verification(run, time.monotonic() - started)
    if run.found:
        raise typer.Exit(DIFFERENCES_FOUND)


async def verify_collection(settings: Settings, home: Path, name: str, bounds: Bounds, *, repair: bool) -> Verification:
    """Open the stores of one collection, verify it, and close them."""
    only = settings.model_copy(update={"collections": {name: settings.collections[name]}})
    async with AsyncExitStack() as resources:
        opened = await open_all(only, home, _progress)
        resources.push_async_callback(opened.close)
        around = Surroundings(now_ms, opened.epoch, Telemetry(tracing=False))
        with _errors.status("verifying") as status:
            return await run_verify(
                opened.collections[name],
                bus=opened.bus,
                around=around,
                bounds=bounds,
                repair=repair,
                progress=lambda count: status.update(f"verifying: {count} documents read"),
            )


def summary(run: Verification, seconds: float) -> dict[str, object]:
    """Return a verification as one JSON document."""
    return {
        "collection": run.collection,
        "legacy_documents": run.legacy_documents,
        "vector_documents": run.vector_documents,
        "differences": run.found,
        "settled": run.settled,
        "repaired": run.repaired,
        "seconds": round(seconds, 3),
        "listed": [
            {
                "id": d.id,
                "kind": d.kind,
                "detail": d.detail,
                "legacy_version": d.legacy_version,
                "vector_version": d.vector_version,
            }
            for d in run.differences
        ],
    }


def print_verification(run: Verification, seconds: float) -> None:
    """Print a verification for people."""
    console = Console(highlight=False)
    if run.differences:
        table = Table(box=None, pad_edge=False)
        for column in ("document", "kind", "detail", "legacy version", "Qdrant version"):
            table.add_column(column)
        for d in run.differences:
            table.add_row(d.id, d.kind, d.detail, str(d.legacy_version or ""), str(d.vector_version or ""))
        console.print(table)
        if run.more_differences:
            console.print(f"and {run.more_differences} more")
    console.print(
        f"{run.legacy_documents} documents in the table, {run.vector_documents} in Qdrant: "
        f"{run.found} differences, {run.settled} settled at the second look, {run.repaired} repaired "
        f"({seconds:.1f} s)"
    )
