"""`crossfade verify`: the verifier on the command line. What it compares is in `migration.verify`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
import uvloop

from connectors.gc_tuning import collect_rarely
from operations.context import (
    DIFFERENCES,
    FAILED,
    PANEL_LOOK,
    CollectionArgument,
    ConfigOption,
    Context,
    HomeOption,
    JsonOption,
    amount,
    counting,
    errors_reported,
    load,
    print_json,
    print_table,
    renamed,
    run,
    say,
)

if TYPE_CHECKING:
    from migration.verify.options import VerifyOptions
    from migration.verify.result import Verification

app = typer.Typer()
_CPU_SHARE = 0.05
_SAMPLE_SHARE = 10  # with --continuous, a round takes the sample divided by this
_ROUNDS_KEPT = 500
_SHOWN = 50


@app.command(rich_help_panel=PANEL_LOOK)
def verify(
    collection: CollectionArgument = None,
    repair: Annotated[bool, typer.Option("--repair", help="Append a refresh entry for each difference.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Read every row, also where the table's checksums did not change.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin again, even if the last run was interrupted.")
    ] = False,
    sample: Annotated[
        int,
        typer.Option(
            "--sample", min=0, help="Documents whose computed vectors are computed again (--continuous: a tenth)."
        ),
    ] = 200,
    continuous: Annotated[
        bool, typer.Option("--continuous", help="Go round and round, slowly, until a signal; one line a round.")
    ] = False,
    cpu_share: Annotated[
        float, typer.Option("--cpu-share", min=0.001, max=1.0, help="Of a core, with --continuous.")
    ] = _CPU_SHARE,
    max_rounds: Annotated[int | None, typer.Option("--max-rounds", min=1, help="Ends --continuous.")] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report as one page, too.")
    ] = None,
    recheck_delay_s: Annotated[
        float,
        typer.Option("--recheck-delay", min=0.0, help="Seconds before a document that differs is compared again."),
    ] = 2.0,
    recheck_timeout_s: Annotated[
        float, typer.Option("--recheck-timeout", min=0.0, help="Seconds to wait for changes that are in flight.")
    ] = 30.0,
    settle_s: Annotated[
        float | None, typer.Option("--settle", min=0.0, hidden=True, help="Now --recheck-delay.")
    ] = None,
    patience_s: Annotated[
        float | None, typer.Option("--patience", min=0.0, hidden=True, help="Now --recheck-timeout.")
    ] = None,
    page: Annotated[int, typer.Option("--page", min=1, max=10_000, help="Documents read at a time.")] = 1000,
    range_rows: Annotated[int, typer.Option("--range-rows", min=1, help="Rows a range of the proof.")] = 4000,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Prove that Qdrant holds what the legacy table holds, in both directions, payloads and vectors included.

    Exit code 3: there were differences, even if they were repaired; verify again to see that they are gone.
    Exit code 1: something could not be read or was still in flight; it counts as neither different nor equal.
    """
    # The modules that a verification needs take a second to import.
    from connectors.failpoints import arm  # noqa: PLC0415
    from migration.verify.options import Bounds, VerifyOptions  # noqa: PLC0415
    from operations.render.verification import document_of  # noqa: PLC0415

    with errors_reported():
        context = load(config, home)
        name = context.collection(collection)
        arm(os.environ)
    collect_rarely()
    delay_s = renamed("--settle", settle_s, "--recheck-delay", recheck_delay_s)
    timeout_s = renamed("--patience", patience_s, "--recheck-timeout", recheck_timeout_s)
    bounds = Bounds(
        page=page, recheck_delay_s=delay_s, recheck_timeout_s=timeout_s, range_rows=range_rows,
        sample=-(-sample // _SAMPLE_SHARE) if continuous else sample,
        in_flight=1 if continuous else Bounds().in_flight,
    )  # fmt: skip
    options = VerifyOptions(bounds, repair, full, restart, cpu_share if continuous else None)
    if continuous:
        last = run(_rounds(context, name, options, max_rounds, html, json), uvloop.new_event_loop)
    else:
        last = run(once(context, name, options, html), uvloop.new_event_loop)
        if json:
            print_json(document_of(last))
        else:
            show(last)
    if last is not None:
        end_with(last)


def end_with(found: Verification) -> None:
    """End the command with the exit code of a verification whose verdict is not *equal*."""
    if found.found:
        raise typer.Exit(DIFFERENCES)
    if found.verdict != "equal":
        raise typer.Exit(FAILED)


async def once(context: Context, name: str, options: VerifyOptions, html: Path | None) -> Verification:
    """Verify a collection once. Show the progress on stderr, and write the page to `html`."""
    from migration.verify.collection import verify_collection  # noqa: PLC0415  # as above

    with counting("documents compared") as counted:
        found = await verify_collection(
            context.settings,
            context.home,
            name,
            options,
            say=say,
            progress=lambda run: counted(run.legacy_documents + run.vector_documents),
        )
    await _write(html, [found])
    return found


async def _rounds(
    context: Context, name: str, options: VerifyOptions, most: int | None, html: Path | None, json: bool
) -> Verification | None:
    """Report each round on stderr until a signal or the last round. Return the last finished one, None without one."""
    from migration.context import now_ms  # noqa: PLC0415
    from migration.verify.collection import verify_rounds  # noqa: PLC0415  # as above
    from operations.render.verification import document_of, line_of  # noqa: PLC0415

    done: list[Verification] = []

    async def follow() -> None:
        async for found in verify_rounds(context.settings, context.home, name, options, most=most, say=say):
            done.append(found)
            del done[:-_ROUNDS_KEPT]
            line = orjson.dumps(document_of(found, ranges=False)).decode() if json else line_of(found, now_ms())
            say(line)
            await _write(html, done)

    following = asyncio.ensure_future(follow())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, following.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await following
    return done[-1] if done else None


async def _write(html: Path | None, runs: list[Verification]) -> None:
    if html is not None:
        from operations.render.verification_page import page_of  # noqa: PLC0415  # as above

        await asyncio.to_thread(html.write_text, page_of(runs), encoding="utf-8")


def show(found: Verification) -> None:
    """Print the findings of a verification, for people."""
    from migration.verify.options import Bounds  # noqa: PLC0415  # as above
    from operations.render.verification import seconds_of  # noqa: PLC0415  # as above

    if found.differences:
        rows = [
            (d.id, d.kind, d.detail, _version(d.legacy_version), _version(d.vector_version))
            for d in found.differences[:_SHOWN]
        ]
        print_table(("document", "kind", "detail", "version in the table", "in Qdrant"), rows)
        if found.found > _SHOWN:
            print(f"and {found.found - _SHOWN} more (--json and --html list up to {Bounds().listed})")
    for error in found.errors[:20]:
        print(f"not read: {error}")
    if found.unchecked:
        print(f"{amount(found.unchecked, 'document')} with points that carry no checksums: --repair writes them again.")
    if found.sample.documents:
        lowest = "-" if found.sample.lowest_cosine is None else f"{found.sample.lowest_cosine:.6f}"
        print(f"{amount(found.sample.documents, 'document')} embedded again, lowest cosine {lowest}.")
    print(
        f"{found.verdict}: {amount(found.legacy_documents, 'document')} in the table ({found.rows_read} read), "
        f"{found.vector_documents} in Qdrant: {amount(found.found, 'difference')}, "
        f"{found.settled} settled at the recheck, {found.pending} pending, {found.unknown} unknown, "
        f"{amount(found.repaired, 'repair')} in flight ({seconds_of(found):.1f} s)."
    )


def _version(number: int | None) -> str:
    return "-" if number is None else str(number)
