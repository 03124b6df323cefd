"""`crossfade topics`: what topics there are and must be. The plan is made in `topics.provisioning`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from connectors.kafka.admin import apply as apply_actions
from connectors.kafka.admin import existing_topics
from operations.context import (
    DIFFERENCES,
    ConfigOption,
    Context,
    HomeOption,
    JsonOption,
    amount,
    load,
    print_json,
    print_table,
    run,
    told,
)
from topics.catalogue import DAY_MS, FOR_EVER
from topics.provisioning import Action, ExistingTopic, desired_topics, plan

app = typer.Typer(no_args_is_help=True, help="The topics: what there is, what there must be.")


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan and the topics that it was made for."""

    actions: tuple[Action, ...]
    existing: dict[str, ExistingTopic]


async def make_plan(context: Context) -> Planned:
    """Compare the topics of the brokers with those that catalogue and collections need."""
    desired = desired_topics(context.settings)
    existing = await existing_topics(context.bootstrap, [topic.name for topic in desired])
    return Planned(plan(desired, existing), existing)


@app.command("list")
def list_topics(config: ConfigOption = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """Show every topic: partitions, how long records are kept, and whether it is as it should be."""
    with told():
        context = load(config, home)
    planned = run(make_plan(context))
    if json:
        print_json({"topics": [_described(action, planned) for action in planned.actions]})
        return
    rows = []
    for action in planned.actions:
        found = planned.existing.get(action.topic.name)
        rows.append(
            (
                action.topic.name,
                found.partitions if found else "-",
                _kept(found.config.get("retention.ms", "")) if found else "-",
                found.config.get("cleanup.policy", "") if found else "-",
                _state(action),
            )
        )
    print_table(("topic", "partitions", "kept", "clean-up", "state"), rows)


@app.command("apply")
def apply_topics(
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Also do what shortens or reorders; the plan says what.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and change nothing.")] = False,
) -> None:
    """Create what is missing, widen and alter what may be; never narrow, never break the order of a document's changes.

    Exit code 3: a step was refused, or waits for --yes; the other steps were done.
    """
    with told():
        context = load(config, home)
    planned, done = run(_apply(context, yes=yes, dry_run=dry_run))
    steps = [action for action in planned.actions if action.kind != "keep"]
    kept = len(planned.actions) - len(steps)
    if json:
        print_json(
            {
                "applied": not dry_run,
                "kept": kept,
                "steps": [_described(action, planned) | {"done": action in done} for action in steps],
            }
        )
    else:
        rows = [(_outcome(action, done, dry_run), action.topic.name, _reason(action)) for action in steps]
        if rows:
            print_table(("step", "topic", "why"), rows)
        print(f"Done: {amount(len(done), 'step')}. As it should be: {amount(kept, 'topic')}.")
    if any(action.kind == "refuse" or (action.confirm and not yes) for action in steps):
        raise typer.Exit(DIFFERENCES)


async def _apply(context: Context, *, yes: bool, dry_run: bool) -> tuple[Planned, tuple[Action, ...]]:
    planned = await make_plan(context)
    todo = tuple(
        action
        for action in planned.actions
        if action.kind in {"create", "widen", "alter"} and (yes or not action.confirm)
    )
    if dry_run or not todo:
        return planned, ()
    await apply_actions(context.bootstrap, todo)
    return planned, todo


def _described(action: Action, planned: Planned) -> dict[str, Any]:
    found = planned.existing.get(action.topic.name)
    return {
        "topic": action.topic.name,
        "step": action.kind,
        "reason": action.reason,
        "needs_yes": action.confirm or None,
        "partitions": found.partitions if found else None,
        "wanted_partitions": action.topic.partitions,
        "config": dict(found.config) if found else None,
        "wanted_config": dict(action.topic.config),
    }


def _state(action: Action) -> str:
    return action.reason if action.kind == "keep" else f"{action.kind}: {_reason(action)}"


def _reason(action: Action) -> str:
    return f"{action.reason} (needs --yes: {action.confirm})" if action.confirm else action.reason


def _outcome(action: Action, done: tuple[Action, ...], dry_run: bool) -> str:
    if action.kind == "refuse":
        return "refused"
    if action in done:
        return {"create": "created", "widen": "widened", "alter": "altered"}[action.kind]
    return f"would {action.kind}" if dry_run and not action.confirm else "waits for --yes"


def _kept(retention_ms: str) -> str:
    if not retention_ms:
        return ""
    return "for ever" if int(retention_ms) == FOR_EVER else f"{int(retention_ms) / DAY_MS:g} d"
