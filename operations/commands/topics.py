"""`crossfade topics`: which topics exist, and which must exist. The plan is made in `topics.provisioning`."""

from __future__ import annotations

from dataclasses import dataclass
from json import dumps
from typing import Annotated, Any

import typer

from connectors.kafka.admin import apply as apply_actions
from connectors.kafka.admin import broker_ids, existing_topics, topic_names
from operations.context import (
    DIFFERENCES,
    ConfigOption,
    Context,
    HomeOption,
    JsonOption,
    amount,
    errors_reported,
    load,
    print_json,
    print_table,
    run,
    say,
)
from topics.catalogue import DAY_MS, FOR_EVER
from topics.provisioning import Action, ExistingTopic, desired_topics, plan, reassignment

app = typer.Typer(no_args_is_help=True, help="The topics: what there is, what there must be.")


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and the topics and brokers that it was made for."""

    actions: tuple[Action, ...]
    existing: dict[str, ExistingTopic]
    brokers: tuple[int, ...] = ()

    @property
    def reassignment(self) -> dict[str, object] | None:
        """The input for `kafka-reassign-partitions`: see `topics.provisioning.reassignment`."""
        return reassignment(self.actions, self.existing, self.brokers)


async def make_plan(context: Context) -> Planned:
    """Compare the topics on the brokers with the topics that the catalogue and the collections need."""
    desired = desired_topics(context.settings, await topic_names(context.bootstrap))
    existing = await existing_topics(context.bootstrap, [topic.name for topic in desired])
    return Planned(plan(desired, existing), existing, tuple(await broker_ids(context.bootstrap)))


@app.command("list")
def list_topics(config: ConfigOption = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """Show every topic: its partitions, how long its records are kept, and whether it is as it should be."""
    with errors_reported():
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
    """Create missing topics, and widen or alter existing ones as far as that is allowed.

    Never narrows a topic. Does what may break the order of a document's changes only with --yes.
    Replicas are added by Kafka's own kafka-reassign-partitions; the file that it needs is printed.
    Exit code 3: a step was refused, or waits for --yes or for replicas; the other steps were done.
    """
    with errors_reported():
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
                "reassignment": planned.reassignment,
            }
        )
    else:
        rows = [(_outcome(action, done, dry_run), action.topic.name, _reason(action)) for action in steps]
        if rows:
            print_table(("step", "topic", "why"), rows)
        for line in _replicas_text(planned):
            print(line)
        print(f"Done: {amount(len(done), 'step')}. As it should be: {amount(kept, 'topic')}.")
    if any(action.kind in {"refuse", "reassign"} or (action.confirm and not yes) for action in steps):
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


@app.command("adopt")
def adopt_topics(
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only show what was replaced.")] = False,
) -> None:
    """Go on with topics that were deleted and created again, moved to another cluster, or lost unread records.

    Raises the epochs, so that every change takes effect again. Makes the roles read again what they may have missed.
    Workers may run: they take no records until the adoption is done.
    A collection that cannot be opened is left out; adopt again when it is back.
    Exit code 3: the adoption waits for --yes. Exit code 1: nothing was replaced.
    """
    # It opens the databases, whose drivers take a while to import.
    from migration.topic_adoption import opened  # noqa: PLC0415

    with errors_reported():
        context = load(config, home)

    async def adopt() -> tuple[Any, Any, dict[str, str]]:
        async with opened(context.settings) as adopter:
            plan = await adopter.plan()
            return plan, await adopter.carry_out(plan, say) if yes else None, adopter.left_out

    plan, done, left_out = run(adopt())
    document = {
        "adopted": done is not None,
        "replaced": dict(plan.replaced),
        "version_epoch": plan.epochs.version,
        "producer_epoch": plan.epochs.producer,
        "read_again": sorted(plan.steps.restart),
        "forgotten": done.forgotten if done else None,
        "remedies": done.remedies if done else None,
        "left_out": left_out,
    }
    if json:
        print_json(document)
    else:
        for line in _adoption_text(plan, done):
            print(line)
        for name, why in left_out.items():
            print(f"{name} is left out, and to be adopted when it can be opened: {why}")
    if done is None:
        raise typer.Exit(DIFFERENCES)


def _adoption_text(plan: Any, done: Any) -> list[str]:
    lines = list(plan.replaced.values())
    roles = ", ".join(sorted(plan.steps.restart))
    epochs = f"epoch of the log {plan.epochs.version}, of producers' positions {plan.epochs.producer}"
    if done is None:
        return [*lines, f"To adopt: {epochs}; {roles} read their topics from the first record (needs --yes)."]
    lines.append(f"Adopted: {epochs}; {roles} read their topics from the first record.")
    if done.forgotten:
        lines.append(
            f"{amount(done.forgotten, 'document')} not in the table yet: taken again where submitted has them."
        )
    return [*lines, *(f"Now prove it equal: {remedy}" for remedy in done.remedies.values())]


def _replicas_text(planned: Planned) -> list[str]:
    """Return the lines that explain how to add the missing replicas."""
    few = [action.topic for action in planned.actions if action.kind == "reassign"]
    if not few:
        return []
    if planned.reassignment is None:
        brokers = len(planned.brokers)
        return [
            f"kafka.replication is {few[0].replication}, there {'is' if brokers == 1 else 'are'} "
            f"{amount(brokers, 'broker')}: start more, or set kafka.replication to {brokers}."
        ]
    return [
        "To add the replicas, write this line to a file and give it to"
        " kafka-reassign-partitions --execute --reassignment-json-file; then apply again:",
        dumps(planned.reassignment),
    ]


def _described(action: Action, planned: Planned) -> dict[str, Any]:
    found = planned.existing.get(action.topic.name)
    return {
        "topic": action.topic.name,
        "step": action.kind,
        "reason": action.reason,
        "needs_yes": action.confirm or None,
        "partitions": found.partitions if found else None,
        "wanted_partitions": action.topic.partitions,
        "replication": found.replication if found else None,
        "wanted_replication": action.topic.replication,
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
    if action.kind == "reassign":
        return "to reassign"
    if action in done:
        return {"create": "created", "widen": "widened", "alter": "altered"}[action.kind]
    return f"would {action.kind}" if dry_run and not action.confirm else "waits for --yes"


def _kept(retention_ms: str) -> str:
    if not retention_ms:
        return ""
    return "for ever" if int(retention_ms) == FOR_EVER else f"{int(retention_ms) / DAY_MS:g} d"
