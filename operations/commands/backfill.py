"""`crossfade backfill`: brings a live table into Qdrant by key ranges. The work is in `migration.backfill`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
import uvloop
from rich.console import Console

from connectors.gc_tuning import collect_rarely
from operations.context import (
    PANEL_RUN,
    CollectionArgument,
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

if TYPE_CHECKING:
    from schemas.tasks import BackfillState

app = typer.Typer()
_LINE_S = 10.0


@app.command(rich_help_panel=PANEL_RUN)
def backfill(
    collection: CollectionArgument = None,
    parallel: Annotated[int, typer.Option("--parallel", min=1, max=64, help="Ranges worked on at a time.")] = 4,
    range_rows: Annotated[
        int, typer.Option("--range-rows", min=100, max=1_000_000, help="Rows of a range of a new backfill.")
    ] = 10_000,
    lag_s: Annotated[
        float, typer.Option("--max-lag", min=0.1, help="Wait while a role is behind by more seconds than this.")
    ] = 30.0,
    lag_messages: Annotated[
        int, typer.Option("--max-lag-records", min=1, help="... or by more records than this.")
    ] = 20_000,
    running: Annotated[
        int, typer.Option("--max-running", min=1, help="Slow down while the database runs more statements than this.")
    ] = 32,
    restart: Annotated[bool, typer.Option("--restart", help="Begin again, even if a run was interrupted.")] = False,
    index: Annotated[
        bool, typer.Option("--index/--no-index", help="Build the index at the end, and measure its recall.")
    ] = True,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Bring every row of a live table into Qdrant, concurrently with the changes that the worker writes there.

    Goes on where it was interrupted. `crossfade migrate pause` holds it and `crossfade migrate resume` lets it go on.
    Run `crossfade verify` when it is done.
    """
    # It needs the same modules as a worker, and they take a second to import.
    from connectors.failpoints import arm  # noqa: PLC0415
    from domain.pacing import Limits  # noqa: PLC0415
    from migration.backfill.collection import backfill_collection  # noqa: PLC0415
    from migration.backfill.run import BackfillOptions  # noqa: PLC0415

    with errors_reported():
        arm(os.environ)
        context = load(config, home)
        name = context.collection(collection)
        _ = context.bootstrap, context.dsn(name)
    collect_rarely()
    options = BackfillOptions(Limits(parallel, lag_s, lag_messages, running), range_rows, restart, index)
    with progress_shown() as progress:
        work = backfill_collection(context.settings, context.home, name, options, say=say, progress=progress)
        done = run(work, uvloop.new_event_loop)
    if json:
        print_json({"collection": name, **done.model_dump()})
        return
    print(summary(done))
    print(f"Next: crossfade verify {name}")


def summary(state: BackfillState) -> str:
    """Return a summary of a finished backfill."""
    filled_at_ms = state.filled_at_ms or state.updated_at_ms
    handed = f", {amount(state.handed_over, 'row')} handed over to the agents" if state.handed_over else ""
    took = _s(state.started_at_ms, filled_at_ms)
    text = f"{amount(state.rows, 'row')}, {amount(state.points, 'point')}{handed} ({took})."
    if state.recall is None:
        return text
    indexed = _s(filled_at_ms, state.finished_at_ms or state.updated_at_ms)
    return f"{text} Recall@10 of the index, built in {indexed}: {state.recall:.3f}."


def _s(from_ms: int, to_ms: int) -> str:
    return f"{(to_ms - from_ms) / 1000:.1f} s"


def line(state: BackfillState) -> str:
    """Return how far a backfill is, as one line."""
    if state.state == "indexing":
        return f"{state.rows:,} rows done; building the index"
    share = f" of about {state.rows_estimated:,}" if state.rows_estimated else ""
    eta = "" if state.eta_s is None else f", {state.eta_s:,.0f} s left"
    held = f" ({state.throttle})" if state.throttle else ""
    return f"{state.rows:,}{share} rows, {state.rate:,.0f}/s{eta}{held}"


@contextmanager
def progress_shown() -> Iterator[Callable[[BackfillState], None]]:
    """Show a backfill's progress on stderr: in place on a terminal, otherwise as a line every ten seconds."""
    if sys.stderr.isatty():
        with Console(stderr=True, highlight=False).status("backfill") as status:
            yield lambda state: status.update(line(state))
        return
    shown_s = 0.0

    def show_line(state: BackfillState) -> None:
        nonlocal shown_s
        if time.monotonic() - shown_s >= _LINE_S:
            shown_s = time.monotonic()
            say(line(state))

    yield show_line
