"""`crossfade recapture`: makes a quarantined collection active again. The work is in `migration.capture.recapture`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from operations.context import (
    PANEL_LOOK,
    ConfigOption,
    HomeOption,
    JsonOption,
    amount,
    errors_reported,
    load,
    print_json,
    run,
    say,
)

app = typer.Typer()


@app.command(rich_help_panel=PANEL_LOOK)
def recapture(
    collections: Annotated[list[str], typer.Argument(metavar="COLLECTION...", help="Their names.")],
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Capture collections again with a fresh snapshot, repair what it cannot see, and prove both stores equal.

    For a quarantined collection: its slot was dropped, its binlog was purged, or a captured change cannot be read.
    A worker must be running. Collections of one database that are named together share a connector.
    """
    # It needs the same modules as a worker, and they take a second to import.
    from migration.capture.recapture import recapture as capture_again  # noqa: PLC0415

    with errors_reported():
        context = load(config, home)
        names = list(dict.fromkeys(context.collection(name) for name in collections))
    done = run(capture_again(context.settings, context.home, names, say))
    if json:
        print_json([asdict(one) for one in done])
        return
    for one in done:
        print(
            f"{one.collection}: {amount(one.documents, 'document')} in both stores, equal; "
            f"{amount(one.repaired, 'repair')} after the snapshot ({one.seconds:.1f} s)."
        )
