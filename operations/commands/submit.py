"""`crossfade submit`: publishes the documents of a file. `operations.clients.submissions` makes the records."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from connectors.kafka.bus import AiokafkaBus
from operations.clients.submissions import batches
from operations.context import (
    PANEL_RUN,
    ConfigOption,
    Context,
    HomeOption,
    JsonOption,
    amount,
    counting,
    errors_reported,
    load,
    print_json,
)

app = typer.Typer()


@app.command(rich_help_panel=PANEL_RUN)
def submit(
    file: Annotated[Path, typer.Argument(help="Documents, one JSON object a line; - reads standard input.")],
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Publish documents as a producer would.

    A line is {"collection": "…", "id": "…", "text": "…", "metadata": {…}}.
    The text may also be an object of the text columns.
    {"collection": "…", "id": "…", "delete": true} deletes a document.
    """
    with errors_reported():
        context = load(config, home)
        _ = context.bootstrap
    count = _submitted(context, file)
    if json:
        print_json({"submitted": count})
    else:
        print(f"Submitted: {amount(count, 'document')}.")


def _submitted(context: Context, file: Path) -> int:
    bus = AiokafkaBus(context.settings.kafka)
    count = 0
    with errors_reported(), asyncio.Runner() as runner, counting("submitted") as counted:
        try:
            # Lines are read while the event loop is not running, so that Ctrl-C also ends the wait for the next line.
            for batch in batches(file):
                runner.run(bus.publish(batch))
                count += len(batch)
                counted(count)
        finally:
            runner.run(bus.close())
    return count
