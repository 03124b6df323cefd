"""`crossfade up`, `down` and `status`: the local stack on the command line. How parts start is not decided here."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

import typer
from rich.console import Console
from rich.table import Table

from operations.stack.layout import PART_NAMES, PartName, StackAddresses, default_home
from operations.stack.stack import ALL_PARTS, NEVER_STARTED, LocalStack, PartStatus

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, add_completion=False)

_errors = Console(stderr=True, highlight=False)

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", help="Folder of data, logs and state.", envvar="CROSSFADE_HOME", show_default="~/.crossfade"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def up(
    parts: Annotated[
        list[str] | None, typer.Argument(help=f"Parts to start: {', '.join(PART_NAMES)}. All by default.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start Kafka, Kafka Connect with Debezium, PostgreSQL and MariaDB on this machine, and wait until they answer.

    What runs already is left as it is. MariaDB is left out where the system has none; named as a part, it is installed
    (as root on Debian and its relatives).
    """
    wanted = _parts(parts)
    stack = LocalStack(home or default_home(), wanted, install_mariadb=bool(parts) and "mariadb" in wanted)
    addresses = _run(stack.up(lambda text: _errors.print(text, markup=False, soft_wrap=True)))
    if as_json:
        print(json.dumps(dataclasses.asdict(addresses)))
    else:
        _print_addresses(addresses)


@app.command()
def down(
    parts: Annotated[list[str] | None, typer.Argument(help="Parts to end. All by default.")] = None,
    home: HomeOption = None,
) -> None:
    """End the local stack cleanly. Its data stays: `up` goes on with it."""
    _run(LocalStack(home or default_home(), _parts(parts)).down())
    _errors.print("stopped")


@app.command()
def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show each part of the local stack: state, process, memory and address.

    The exit code is 0 when every part that was ever started runs, else 1. Only --json shows passwords.
    """
    parts = _run(LocalStack(home or default_home()).status())
    if as_json:
        print(json.dumps([dataclasses.asdict(part) for part in parts]))
    else:
        _print_status(parts)
    started = [part for part in parts if part.detail != NEVER_STARTED]
    if not started or any(part.state != "running" for part in started):
        raise typer.Exit(1)


def _parts(names: list[str] | None) -> frozenset[PartName]:
    # LocalStack refuses names that it does not know, with a message.
    return frozenset(cast("list[PartName]", names)) if names else ALL_PARTS


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


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
    # In a pipe there is no width to respect: each part keeps its line.
    Console(highlight=False, width=None if sys.stdout.isatty() else 250).print(table)


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    if "@" not in parts.netloc:
        return address
    user = parts.username or ""
    return urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}"))
