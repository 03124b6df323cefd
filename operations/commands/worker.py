"""`crossfade worker`: runs agents in this process. How they are run is in `operations.running`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

import typer
import uvloop

from agents.wiring import ROLES, RoleName
from operations.context import PANEL_RUN, WRONG_USE, ConfigOption, HomeOption, load, run, say, told
from operations.errors import CommandError

app = typer.Typer()


@app.command(rich_help_panel=PANEL_RUN)
def worker(
    roles: Annotated[str, typer.Option(help=f"Roles, separated by commas: {', '.join(ROLES)}.")] = ",".join(ROLES),
    ready_file: Annotated[Path | None, typer.Option(help="Written when every agent consumes.", hidden=True)] = None,
    config: ConfigOption = None,
    home: HomeOption = None,
) -> None:
    """Run the agents until Ctrl-C or SIGTERM, then finish what is in flight.

    Creates missing topics and starts capture first. Several workers share the work, partition by partition.
    """
    # Faust and the embedding engine take a second to import, which no other command should wait for.
    from operations.running import run_worker  # noqa: PLC0415

    with told():
        chosen = roles_of(roles)
        context = load(config, home)
    run(run_worker(context.settings, context.home, chosen, say, ready_file), uvloop.new_event_loop)


def roles_of(text: str) -> list[RoleName]:
    """Return the roles of a list with commas. Raises CommandError for a name that is none, and for no role at all."""
    chosen = list(dict.fromkeys(role.strip() for role in text.split(",") if role.strip()))
    unknown = [role for role in chosen if role not in get_args(RoleName)]
    if unknown or not chosen:
        wrong = f"There is no role {', '.join(unknown)}." if unknown else "No role is named."
        raise CommandError(wrong, f"Roles: {', '.join(ROLES)}.", WRONG_USE)
    return cast("list[RoleName]", chosen)
