"""The tree of `crossfade` commands: puts the groups together; what a command does is in its own module.

Exit codes: 0 done, 1 failed, 2 wrong use, 3 done, but differences were found or a gate did not pass.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from operations.commands import (
    ask,
    backfill,
    config,
    demo,
    dlt,
    inspect,
    migrate,
    recapture,
    schemas,
    stack,
    submit,
    topics,
    verify,
    worker,
)
from operations.context import PANEL_LOOK, PANEL_SET_UP

app = typer.Typer(
    name="crossfade",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong use, 3 done, but differences or mistakes were found.",
)

for group in (demo, stack, worker, submit, ask, backfill, verify, inspect, recapture):
    app.add_typer(group.app)
app.add_typer(migrate.app, name="migrate", rich_help_panel=PANEL_LOOK)
app.add_typer(dlt.app, name="dlt", rich_help_panel=PANEL_LOOK)
app.add_typer(config.app, name="config", rich_help_panel=PANEL_SET_UP)
app.add_typer(topics.app, name="topics", rich_help_panel=PANEL_SET_UP)
app.add_typer(schemas.app, name="schemas", rich_help_panel=PANEL_SET_UP)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"crossfade {version('crossfade')}")
        raise typer.Exit


@app.callback()
def crossfade(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Move a live document store from MariaDB or PostgreSQL to Qdrant, serving queries from both while it does."""
