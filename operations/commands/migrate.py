"""`crossfade migrate`: the move of a collection, from its plan to its proof. The work is in `migration`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from connectors.gc_tuning import collect_rarely
from operations.commands import backfill, rollout, verify
from operations.context import (
    DIFFERENCES,
    FAILED,
    CollectionArgument,
    ConfigOption,
    HomeOption,
    JsonOption,
    errors_reported,
    load,
    print_json,
    print_table,
    run,
    say,
)
from operations.errors import CommandError

app = typer.Typer(no_args_is_help=True, help="The move of collections: plan and start, phases forth and back.")
for _command in (rollout.promote, rollout.rollback, rollout.abort, rollout.history, rollout.comparisons):
    app.command()(_command)


@app.command("plan")
def plan(
    collection: CollectionArgument = None,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show the steps of a collection's move: what is done, what `migrate start` will do, and what must be fixed first.

    Exit code 3: something must be fixed first.
    """
    # The drivers of databases and brokers take a second to import.
    from migration.plan import blocked, document_of, steps  # noqa: PLC0415
    from migration.plan_facts import facts_of  # noqa: PLC0415

    with errors_reported():
        context = load(config, home)
        name = context.collection(collection)
    found = steps(run(facts_of(context, name)))
    if json:
        print_json(document_of(name, found))
    else:
        print_table(
            ("step", "state", "", "remedy"), [(s.name, s.state, s.message, s.remedy) for s in found], title=name
        )
    if blocked(found):
        raise typer.Exit(DIFFERENCES)


@app.command("start")
def start(
    collection: CollectionArgument = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Append a refresh entry for each difference that the proof finds.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report of the proof as one page, too.")
    ] = None,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Do what `migrate plan` shows: fill Qdrant from the live table, then prove that both hold the same.

    Goes on where it was interrupted. The collection's phase stays as configured.
    `crossfade backfill` and `crossfade verify` run the two steps separately, with more options.
    Exit code 3: something must be fixed first, or there were differences.
    Exit code 1: not everything could be compared.
    """
    # Imported late, as in `plan`.
    from connectors.failpoints import arm  # noqa: PLC0415
    from migration.backfill.collection import backfill_collection  # noqa: PLC0415
    from migration.backfill.run import BackfillOptions  # noqa: PLC0415
    from migration.plan import blocked, is_due, steps  # noqa: PLC0415
    from migration.plan_facts import facts_of  # noqa: PLC0415
    from migration.verify.options import VerifyOptions  # noqa: PLC0415
    from operations.render.verification import document_of  # noqa: PLC0415

    with errors_reported():
        context = load(config, home)
        name = context.collection(collection)
        arm(os.environ)
    due = steps(run(facts_of(context, name)))
    with errors_reported():
        if (stop := blocked(due)) is not None:
            raise CommandError(f"{name}: {stop.message}.", f"Remedy: {stop.remedy}", DIFFERENCES)
    collect_rarely()
    document: dict[str, Any] = {"collection": name, "backfill": None}
    if is_due(due, "backfill"):
        say(f"{name}: backfill")
        with backfill.progress_shown() as progress:
            filling = backfill_collection(
                context.settings, context.home, name, BackfillOptions(), say=say, progress=progress
            )
            filled = run(filling, uvloop.new_event_loop)
        document["backfill"] = filled.model_dump()
        say(backfill.summary(filled))
    say(f"{name}: proof")
    proof = run(verify.once(context, name, VerifyOptions(repair=repair), html), uvloop.new_event_loop)
    document["proof"] = document_of(proof)
    if json:
        print_json(document)
    else:
        verify.show(proof)
    verify.end_with(proof)


@app.command("status")
def status(
    collection: Annotated[
        str | None, typer.Argument(metavar="COLLECTION", help="Its name (default: all that are configured).")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again every 2 s until Ctrl-C (with --json a line each time).")
    ] = False,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show phase, backfill, proof, lag and capture of collections, and whether one is quarantined.

    Exit code 3: a collection is quarantined or not captured, its backfill failed, or its stores differ.
    Exit code 1: a part did not answer.
    """
    # Imported late, as in `plan`.
    from operations.render.live_status import show  # noqa: PLC0415

    with errors_reported():
        context = load(config, home)
        names = list(context.settings.collections) if collection is None else [context.collection(collection)]
        if not names:
            raise CommandError("No collection is configured.", "See: crossfade config check")
    found = run(show(context.settings, names, watch=watch, json=json))
    if any(progress.wrong for progress in found):
        raise typer.Exit(DIFFERENCES)
    if any(progress.unanswered for progress in found):
        raise typer.Exit(FAILED)


@app.command("pause")
def pause(
    collection: CollectionArgument = None,
    reason: rollout.ReasonOption = "",
    by: rollout.ByOption = None,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Hold a collection's migration: no promotion is accepted, and its backfill waits after its current page.

    Live changes go on. A rollback is accepted, and guards go back by themselves.
    """
    _set_paused(collection, config, home, json, reason, by, paused=True)


@app.command("resume")
def resume(
    collection: CollectionArgument = None,
    reason: rollout.ReasonOption = "",
    by: rollout.ByOption = None,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Let a paused migration go on."""
    _set_paused(collection, config, home, json, reason, by, paused=False)


def _set_paused(
    collection: str | None,
    config: Path | None,
    home: Path | None,
    json: bool,
    reason: str,
    by: str | None,
    *,
    paused: bool,
) -> None:
    # Imported late, as in `plan`.
    from migration.backfill.pause import set_paused  # noqa: PLC0415

    with errors_reported():
        context = load(config, home)
        name = context.collection(collection)
        dsn = context.dsn(name)
    # The backfill first: it needs no conductor.
    state = run(set_paused(name, context.settings.collections[name], dsn, paused=paused))
    decided = rollout.send(context, name, "pause" if paused else "resume", reason=reason, by=by)
    if json:
        print_json({"collection": name, "paused": paused, "backfill": state.state if state else None})
    else:
        text = "is asked to pause" if paused else "may go on"
        print(f"{name}: its backfill {text}{'' if state else '; there is none yet'}.")
        print(f"{name}: {decided.message}.")
    if code := rollout.exit_code(decided):
        raise typer.Exit(code)
