"""`crossfade migrate`: how far the move of a collection is, pause and resume. The work is in `operations.migration`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from operations.context import (
    DIFFERENCES,
    FAILED,
    CollectionArgument,
    ConfigOption,
    HomeOption,
    JsonOption,
    load,
    print_json,
    run,
    told,
)
from operations.errors import CommandError

app = typer.Typer(no_args_is_help=True, help="The move of collections: how far it is, pause and resume.")


@app.command("status")
def status(
    collection: Annotated[
        str | None, typer.Argument(metavar="COLLECTION", help="Its name (default: all that are configured).")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again every 2 s until Ctrl-C (with --json a line each time).")
    ] = False,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show phase, backfill, proof, lag and capture of collections, and whether one is stopped.

    Exit code 3: a collection is stopped, its backfill failed, or its stores differ; 1: a part did not answer.
    """
    # The drivers of databases and brokers take a second to import.
    from operations.migration.showing import show  # noqa: PLC0415

    with told():
        context = load(config, home)
        names = list(context.settings.collections) if collection is None else [context.collection(collection)]
        if not names:
            raise CommandError("No collection is configured.", "See: crossfade config check")
    found = run(show(context.settings, names, watch=watch, json=json))
    if any(progress.wrong for progress in found):
        raise typer.Exit(DIFFERENCES)
    if any(progress.unanswered for progress in found):
        raise typer.Exit(FAILED)


@app.command("pause")
def pause(
    collection: CollectionArgument = None,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Have the backfill of a collection wait after the page that it is at; live changes go on."""
    _set_paused(collection, config, home, json, paused=True)


@app.command("resume")
def resume(
    collection: CollectionArgument = None,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Let a paused backfill go on."""
    _set_paused(collection, config, home, json, paused=False)


def _set_paused(collection: str | None, config: Path | None, home: Path | None, json: bool, *, paused: bool) -> None:
    # As above.
    from operations.migration.control import set_paused  # noqa: PLC0415

    with told():
        context = load(config, home)
        name = context.collection(collection)
        dsn = context.dsn(name)
    state = run(set_paused(name, context.settings.collections[name], dsn, paused=paused))
    if json:
        print_json({"collection": name, "paused": paused, "backfill": state.state if state else None})
        return
    said = "is asked to pause" if paused else "may go on"
    print(f"{name}: its backfill {said}{'' if state else '; there is none yet'}.")
