"""Builds the tree of `crossfade` commands from its groups. What a command does is in the command's own module.

Exit codes: 0 done, 1 failed, 2 usage error, 3 done, but differences or mistakes were found, or a plan was refused.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Annotated, cast

import typer

from operations.context import PANEL_LOOK, PANEL_SET_UP

# The commands of each module of `operations.commands`, in the order of the help.
COMMANDS = {
    "demo": ("demo",),
    "stack": ("up", "down", "status"),
    "worker": ("worker",),
    "submit": ("submit",),
    "ask": ("ask",),
    "backfill": ("backfill",),
    "verify": ("verify",),
    "inspect": ("inspect",),
    "recapture": ("recapture",),
}
# Modules whose commands form a group with the module's name, each with its panel in the help.
GROUPS = {
    "migrate": PANEL_LOOK,
    "dlt": PANEL_LOOK,
    "config": PANEL_SET_UP,
    "topics": PANEL_SET_UP,
    "schemas": PANEL_SET_UP,
}


def command_tree(wanted: str | None = None) -> typer.Typer:
    """Return the tree of all commands.

    If `wanted` names a command or a group, the tree has only its module, and the others are not imported.
    """
    app = typer.Typer(
        name="crossfade",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        epilog="Exit codes: 0 done, 1 failed, 2 usage error, "
        "3 done, but differences or mistakes were found, or a plan was refused.",
    )
    app.callback()(crossfade)
    known = wanted in GROUPS or any(wanted in names for names in COMMANDS.values())
    for module, names in COMMANDS.items():
        if not known or wanted in names:
            app.add_typer(_commands(module))
    for module, panel in GROUPS.items():
        if not known or wanted == module:
            app.add_typer(_commands(module), name=module, rich_help_panel=panel)
    return app


def _commands(module: str) -> typer.Typer:
    return cast("typer.Typer", import_module(f"operations.commands.{module}").app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"crossfade {version('crossfade')}")
        raise typer.Exit


def crossfade(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Move a live document store from MariaDB or PostgreSQL to Qdrant, and serve queries from both during the move."""
