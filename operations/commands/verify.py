"""`crossfade verify`: the difference finder on the command line. What it compares is in `operations.verifying`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from operations.context import (
    DIFFERENCES,
    PANEL_LOOK,
    CollectionArgument,
    ConfigOption,
    Context,
    HomeOption,
    JsonOption,
    amount,
    counting,
    load,
    print_json,
    print_table,
    run,
    say,
    told,
)

if TYPE_CHECKING:
    from operations.verifying import Verification

app = typer.Typer()


@app.command(rich_help_panel=PANEL_LOOK)
def verify(
    collection: CollectionArgument = None,
    repair: Annotated[bool, typer.Option("--repair", help="Append a refresh entry for each difference.")] = False,
    settle_s: Annotated[
        float, typer.Option("--settle", min=0.0, help="Seconds before a difference is looked at again.")
    ] = 2.0,
    page: Annotated[int, typer.Option("--page", min=1, max=10_000, help="Documents read at a time.")] = 500,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Compare every document of the legacy table with Qdrant, both ways.

    Exit code 3: there were differences (also when they were repaired; verify again to see them gone).
    """
    # It opens what a worker opens, and that takes a second to import.
    from operations.verification import document_of  # noqa: PLC0415

    with told():
        context = load(config, home)
        name = context.collection(collection)
    started = time.monotonic()
    found = run(_verified(context, name, page, settle_s, repair))
    seconds = time.monotonic() - started
    if json:
        print_json(document_of(found, seconds))
    else:
        _print(found, seconds)
    if found.found:
        raise typer.Exit(DIFFERENCES)


async def _verified(context: Context, name: str, page: int, settle_s: float, repair: bool) -> Verification:
    from operations.verification import verify_collection  # noqa: PLC0415  # as above
    from operations.verifying import Bounds  # noqa: PLC0415

    with counting("documents read") as counted:
        return await verify_collection(
            context.settings,
            context.home,
            name,
            Bounds(page, settle_s),
            repair=repair,
            progress=say,
            counted=counted,
        )


def _print(run: Verification, seconds: float) -> None:
    if run.differences:
        rows = [
            (d.id, d.kind, d.detail, _version(d.legacy_version), _version(d.vector_version)) for d in run.differences
        ]
        print_table(("document", "kind", "detail", "version in the table", "in Qdrant"), rows)
        if run.more_differences:
            print(f"and {run.more_differences} more")
    print(
        f"{amount(run.legacy_documents, 'document')} in the table, {run.vector_documents} in Qdrant: "
        f"{amount(run.found, 'difference')}, "
        f"{run.settled} settled at the second look, {amount(run.repaired, 'repair')} under way ({seconds:.1f} s)."
    )


def _version(number: int | None) -> str:
    return "-" if number is None else str(number)
