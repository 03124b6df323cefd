"""The `crossfade` command: puts the groups together and turns every error into a message and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong use, 3 done but differences were found or a plan was refused.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import typer

from connectors.errors import CrossfadeError
from operations.commands import demo, pipeline, stack
from operations.errors import CommandError

app = typer.Typer(
    name="crossfade",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Moves a live document store from MariaDB or PostgreSQL to Qdrant, serving queries from both.",
)
for group in (stack, pipeline, demo):
    app.add_typer(group.app)
for name in ("topics", "schemas", "dlt", "config"):
    if (Path(__file__).parent / "commands" / f"{name}.py").exists():
        app.add_typer(importlib.import_module(f"operations.commands.{name}").app, name=name)


def main() -> None:
    """Run the command; nothing prints a traceback at a user unless CROSSFADE_DEBUG=1."""
    try:
        app()
    except (CommandError, CrossfadeError) as error:
        if os.environ.get("CROSSFADE_DEBUG") == "1":
            raise
        print(f"crossfade: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))
