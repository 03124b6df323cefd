"""`crossfade inspect`: one document in every place, side by side. Reading and reasoning are in `migration.inspect`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from operations.context import (
    DIFFERENCES,
    FAILED,
    PANEL_LOOK,
    ConfigOption,
    HomeOption,
    JsonOption,
    errors_reported,
    load,
    print_json,
    run,
)

_PIPED_WIDTH = 240
_CODES = {"equal": 0, "absent": 0, "pending": 0, "unknown": FAILED}

app = typer.Typer()


@app.command(rich_help_panel=PANEL_LOOK)
def inspect(
    collection: Annotated[str, typer.Argument(metavar="COLLECTION", help="Its name.")],
    document_id: Annotated[str, typer.Argument(metavar="ID", help="The document's id.")],
    log_records: Annotated[
        int, typer.Option("--log-records", min=1, help="How many of the newest records of a partition are searched.")
    ] = 50_000,
    text: Annotated[bool, typer.Option("--text", help="Show text whole, not its first words.")] = False,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show a document in the table, the ledger, the log, Qdrant and the dead letters, and what differs and why.

    Exit code 3: the table and Qdrant differ, and no change of the document is in flight.
    Exit code 1: one of the two could not be read.
    """
    # The drivers of databases and brokers take a second to import.
    from migration.inspect.explain import explain  # noqa: PLC0415
    from migration.inspect.read import Bounds, inspect  # noqa: PLC0415
    from operations.render.document import document_of, page  # noqa: PLC0415

    with errors_reported():
        context = load(config, home)
        name = context.collection(collection)
    found = run(inspect(context.settings, context.home, name, document_id, Bounds(log_records)))
    explanation = explain(found)
    if json:
        print_json(document_of(found, explanation, whole=text))
    else:
        width = None if sys.stdout.isatty() else _PIPED_WIDTH
        Console(file=sys.stdout, highlight=False, width=width).print(page(found, explanation, whole=text))
    code = _CODES.get(explanation.verdict, DIFFERENCES)
    if code:
        raise typer.Exit(code)
