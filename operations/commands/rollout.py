"""The commands of `crossfade migrate` that move a collection through its phases. The conductor decides about them."""

from __future__ import annotations

import asyncio
import getpass
import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from operations.context import (
    DIFFERENCES,
    FAILED,
    USAGE_ERROR,
    CollectionArgument,
    ConfigOption,
    Context,
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
from schemas.queries import RankedHit
from schemas.rollout import (
    BY_CHARACTERS,
    PHASE_NAMES,
    REASON_CHARACTERS,
    Action,
    GateResult,
    Outcome,
    Phase,
    RolloutCommanded,
    RolloutDecided,
)

_PROMOTE_S = 60.0
_BACK_S = 20.0
_BEGUN_S = 10.0
# A command is valid for as long as its operator waits, less the time that its answer takes.
_MARGIN_S = 2.0
_CODES: dict[Outcome, int] = {
    "applied": 0,
    "unchanged": 0,
    "judged": 0,
    "gate_failed": DIFFERENCES,
    "gate_inconclusive": DIFFERENCES,
    "conflict": FAILED,
    "refused": FAILED,
}
_OUTCOMES: dict[Outcome, str] = {"gate_failed": "not done", "gate_inconclusive": "not done", "refused": "not done"}

ByOption = Annotated[str | None, typer.Option("--by", help="Who commands it (default: user@host).")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is kept in the history.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would happen, with every gate; do nothing.")]
RevisionOption = Annotated[
    int | None,
    typer.Option("--expect-revision", min=0, help="Do it only if this is still the revision (see migrate status)."),
]
ToOption = Annotated[str | None, typer.Option("--to", metavar="PHASE", help=f"One of {', '.join(PHASE_NAMES)}.")]


def promote(
    collection: CollectionArgument = None,
    to: ToOption = None,
    dry_run: DryRunOption = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on although a gate does not pass. Needs --reason; it is recorded.")
    ] = False,
    reason: ReasonOption = "",
    by: ByOption = None,
    expect_revision: RevisionOption = None,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Move a collection to the next phase, if every gate on the way passes.

    Exit code 3: a gate failed, or is inconclusive (too little is known to pass it).
    Exit code 1: somebody else moved the collection at the same time, or no conductor answers.
    """
    _move("promote", collection, to, config, home, json, reason, by, expect_revision, dry_run=dry_run, force=force)


def rollback(
    collection: CollectionArgument = None,
    to: ToOption = None,
    dry_run: DryRunOption = False,
    reason: ReasonOption = "",
    by: ByOption = None,
    expect_revision: RevisionOption = None,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Move a collection back at once, without moving data.

    Without --to: to shadow if users get answers of Qdrant, else to the phase before.
    """
    _move("rollback", collection, to, config, home, json, reason, by, expect_revision, dry_run=dry_run)


def abort(
    collection: CollectionArgument = None,
    reason: ReasonOption = "",
    by: ByOption = None,
    expect_revision: RevisionOption = None,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Give the migration of a collection up: phase off. Qdrant is not written any more; its points stay.

    To take the migration up again, Qdrant has to be filled and proved again.
    """
    _move("abort", collection, None, config, home, json, reason, by, expect_revision)


def history(
    collection: CollectionArgument = None,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show every decision about a collection: who commanded what, when and why, and on which evidence.

    It is read from a topic that is kept for ever, and from nothing else. --json has every gate as it was judged.
    """
    from operations.clients.rollout import decisions  # noqa: PLC0415

    with errors_reported():
        context = load(config, home)
        name = context.collection(collection)
    found = run(decisions(context.settings.kafka, name))
    if json:
        print_json({"collection": name, "decisions": [each.model_dump() for each in found]})
        return
    print_table(
        ("when", "who", "command", "outcome", "phase", "rev.", "why", ""),
        [
            (
                datetime.fromtimestamp(each.decided_at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ"),
                each.command.by,
                _command_text(each.command),
                each.outcome,
                each.before if each.before == each.after else f"{each.before} → {each.after}",
                each.revision,
                each.command.reason,
                each.message,
            )
            for each in found
        ],
        title=name,
    )


def comparisons(
    collection: CollectionArgument = None,
    worst: Annotated[int, typer.Option("--worst", min=1, help="So many, those first whose answers differ most.")] = 20,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show the questions to which both sides gave the most different answers, with both answers.

    Questions in which one store lacks a document that the other one returned come first.
    """
    # Imported late: the drivers of brokers take a second to import.
    from operations.clients.rollout import comparisons as read  # noqa: PLC0415

    with errors_reported():
        context = load(config, home)
        name = context.collection(collection)
    found = run(read(context.settings.kafka, name))
    if json:
        print_json({"collection": name, "compared": len(found), "worst": [each.model_dump() for each in found[:worst]]})
        return
    rows = [
        (
            each.text,
            "" if each.overlap is None else f"{each.overlap:.2f}",
            "" if each.rbo is None else f"{each.rbo:.2f}",
            f"{each.answered.backend}: {_listed(each.answer)}",
            f"{each.compared.backend}: {_listed(each.other) if each.error is None else each.error}",
            ", ".join(f"{missing.document_id} {missing.reason.replace('_', ' ')}" for missing in each.missing),
        )
        for each in found[:worst]
    ]
    print_table(("question", "overlap", "RBO", "answer", "the other side", "missing there"), rows, title=name)
    say(f"{name}: {len(found):,} questions were compared.")


def _listed(hits: Sequence[RankedHit]) -> str:
    return ", ".join(hit.document_id for hit in hits) or "nothing"


def send(
    context: Context,
    name: str,
    action: Action,
    *,
    to: Phase | None = None,
    reason: str = "",
    by: str | None = None,
    revision: int | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> RolloutDecided:
    """Send a command to the conductor and return what it came to. Raises CommandError, NotReady."""
    # Imported late: the drivers of brokers take a second to import.
    from migration.observe import current_state  # noqa: PLC0415
    from operations.clients.rollout import command, new_id  # noqa: PLC0415

    if len(reason) > REASON_CHARACTERS or len(by or "") > BY_CHARACTERS:
        wrong = f"--reason may have {REASON_CHARACTERS:,} characters, --by {BY_CHARACTERS}."
        with errors_reported():
            raise CommandError(wrong, "", USAGE_ERROR)
    limit_s = _PROMOTE_S if action == "promote" else _BACK_S

    async def sent() -> RolloutDecided:
        expected = revision
        deadline = time.monotonic() + _BEGUN_S
        while expected is None:
            # Also the copy in the database: the topic may have been lost, and is then about to be restored.
            state = await current_state(context.settings, name)
            if state is not None:
                expected = state.revision
            elif time.monotonic() > deadline:
                raise CommandError(
                    f"The rollout of {name} has not begun.",
                    "A worker with the role conductor begins it in the configured phase: crossfade worker",
                )
            else:
                await asyncio.sleep(0.5)  # a worker that has just started is about to begin it
        wanted = RolloutCommanded(
            id=new_id(),
            collection=name,
            action=action,
            to=to,
            expected_revision=expected,
            by=by or _operator(),
            reason=reason,
            dry_run=dry_run,
            force=force,
            valid_ms=round(1000 * (limit_s - _MARGIN_S)),
        )
        return await command(context.settings.kafka, wanted, limit_s)

    return run(sent())


def _operator() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user that has no name
        user = f"uid {os.getuid()}"
    return f"{user}@{platform.node() or 'unknown'}"[:BY_CHARACTERS]


def _move(
    action: Action,
    collection: str | None,
    to: str | None,
    config: Path | None,
    home: Path | None,
    json: bool,
    reason: str,
    by: str | None,
    revision: int | None,
    *,
    dry_run: bool = False,
    force: bool = False,
) -> None:
    with errors_reported():
        context = load(config, home)
        name = context.collection(collection)
        phase = phase_named(to)
        if force and not reason.strip():
            raise CommandError("--force needs --reason: it is kept in the history.", "", USAGE_ERROR)
    decided = send(
        context, name, action, to=phase, reason=reason, by=by, revision=revision, dry_run=dry_run, force=force
    )
    show(decided, json=json)
    if code := exit_code(decided):
        raise typer.Exit(code)


def phase_named(name: str | None) -> Phase | None:
    """Return the phase of this name, None for none. Raises CommandError if there is no such phase."""
    found = next((phase for phase in PHASE_NAMES if phase == name), None)
    if name is not None and found is None:
        raise CommandError(f"There is no phase {name!r}.", f"Phases: {', '.join(PHASE_NAMES)}.", USAGE_ERROR)
    return found


def show(decided: RolloutDecided, *, json: bool) -> None:
    """Print a decision and its gates."""
    if json:
        print_json(decided.model_dump())
        return
    if decided.gates:
        print_table(("gate", "verdict", "value", "limit", "samples", ""), [_row(gate) for gate in decided.gates])
    name, what = decided.command.collection, _OUTCOMES.get(decided.outcome, decided.outcome)
    say(f"{name}: {_command_text(decided.command)}: {what}: {decided.message}.")
    say(f"{name} is in phase {decided.after}, revision {decided.revision}.")


def exit_code(decided: RolloutDecided) -> int:
    """Return the exit code for a decision; that of a dry run says whether a gate would keep it from being applied."""
    if decided.outcome == "judged" and any(gate.verdict != "passed" for gate in decided.gates):
        return DIFFERENCES
    return _CODES[decided.outcome]


def _row(gate: GateResult) -> tuple[Any, ...]:
    bounds = "" if gate.low is None or gate.high is None else f" ({gate.low:.4g} to {gate.high:.4g})"
    value = "" if gate.value is None else f"{gate.value:.4g}{bounds} {gate.unit}".rstrip()
    limit = "" if gate.limit is None else f"{gate.limit:g} {gate.unit}".rstrip()
    return (gate.gate, gate.verdict, value, limit, "" if gate.samples is None else gate.samples, gate.message)


def _command_text(command: RolloutCommanded) -> str:
    parts = [command.action, *([f"to {command.to}"] if command.to else [])]
    parts += [word for word, given in (("(dry run)", command.dry_run), ("(forced)", command.force)) if given]
    return " ".join(parts)
