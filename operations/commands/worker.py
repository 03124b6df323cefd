"""`crossfade worker`: a worker under a supervisor (`stack.supervisor`), or in this process (`operations.worker`)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
import uvloop

from operations.context import (
    PANEL_RUN,
    USAGE_ERROR,
    ConfigOption,
    Context,
    HomeOption,
    errors_reported,
    load,
    run,
    say,
)
from operations.errors import CommandError
from stack.supervisor import Plan, replace_process
from topics.roles import ROLE_NAMES, RoleName

app = typer.Typer()
# The time that a worker needs, beyond its drain limit, to close its stores.
_CLOSING_S = 10.0
_ALL = ",".join(ROLE_NAMES)


@app.command(rich_help_panel=PANEL_RUN)
def worker(
    roles: Annotated[str, typer.Option(help=f"Roles, separated by commas: {_ALL}.")] = _ALL,
    unsupervised: Annotated[
        bool, typer.Option("--unsupervised", help="Run in this process; where it crashes or stalls, it ends.")
    ] = False,
    ready_file: Annotated[Path | None, typer.Option(help="Written when every agent consumes.", hidden=True)] = None,
    supervisor: Annotated[int | None, typer.Option(help="Ends when this process does.", hidden=True)] = None,
    config: ConfigOption = None,
    home: HomeOption = None,
) -> None:
    """Run the agents until Ctrl-C or SIGTERM, then finish what is in flight.

    Creates missing topics and starts capture first. Several workers share the work by partition.
    A worker that crashes or stalls is restarted. One that fails too often in a row is given up (exit code 1).
    """
    with errors_reported():
        chosen = roles_of(roles)
        context = load(config, home)
    if not unsupervised:
        replace_process(_plan(context, chosen, config, ready_file))
    # Faust and the embedding engine take a second to import. No other command should wait for that.
    from operations.worker import run_worker  # noqa: PLC0415

    run(run_worker(context.settings, context.home, chosen, say, ready_file, supervisor), uvloop.new_event_loop)


def _plan(context: Context, roles: list[RoleName], config: Path | None, ready_file: Path | None) -> Plan:
    bounds = context.settings.worker
    ready = (ready_file or context.home / "run" / f"worker-{os.getpid()}.json").absolute()
    given = ["--config", str(config.absolute())] if config is not None else []
    arguments = ["worker", "--unsupervised", "--roles", ",".join(roles), "--home", str(context.home), *given]
    return Plan(
        (sys.executable, "-c", "from operations.cli import main; main()", *arguments, "--ready-file", str(ready)),
        str(ready),
        attempts=bounds.restart_attempts,
        stall_s=bounds.stall_s + bounds.drain_s,
        drain_s=bounds.drain_s + _CLOSING_S,
    )


def roles_of(text: str) -> list[RoleName]:
    """Return the roles in a comma-separated list. Raises CommandError for an unknown role, and if there is no role."""
    chosen = list(dict.fromkeys(role.strip() for role in text.split(",") if role.strip()))
    unknown = [role for role in chosen if role not in get_args(RoleName)]
    if unknown or not chosen:
        wrong = f"There is no role {', '.join(unknown)}." if unknown else "No role is named."
        raise CommandError(wrong, f"Roles: {', '.join(ROLE_NAMES)}.", USAGE_ERROR)
    return cast("list[RoleName]", chosen)
