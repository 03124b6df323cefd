"""`crossfade dlt`: dead letters, what became of them, and their replay. The work is in `migration.dead_letters`."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from connectors.kafka.bus import AiokafkaBus
from migration.dead_letters.captured import CapturedLetters
from migration.dead_letters.replay import Replayed, Selection, letters, replay, sources
from migration.dead_letters.replays import replays_of
from operations.context import (
    DIFFERENCES,
    USAGE_ERROR,
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
)
from operations.errors import CommandError
from schemas.cloudevents import timestamp
from schemas.dead_letters import SUFFIX, DeadLetter
from schemas.records import size_of

_PREVIEW_BYTES = 400
_LISTED = 20
# The size limit of the newest letters of one topic, kept until they are printed. Older ones are found by offset.
_SHOWN_BYTES = 64 * 1024 * 1024

app = typer.Typer(no_args_is_help=True, help="Dead letters: records that could not be used, with their errors.")

TopicArgument = Annotated[
    str | None, typer.Argument(help="The topic they came from, or its dead-letter topic (default: all).")
]
PartitionOption = Annotated[int | None, typer.Option("--partition", min=0, help="In the dead-letter topic.")]
OffsetOption = Annotated[int | None, typer.Option("--offset", min=0, help="In the dead-letter topic.")]


@dataclass(slots=True)
class _Group:
    """The dead letters of one topic, stage and kind of error, counted."""

    count: int = 0
    replayed: int = 0
    last_ms: int = 0
    message: str = ""


@app.command("list")
def list_letters(config: ConfigOption = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """Count dead letters by topic, stage and error, and show how many of them were replayed."""
    with errors_reported():
        context = load(config, home)
    groups = run(_grouped(context))
    if json:
        print_json(
            {
                "dead_letters": [
                    {
                        "topic": topic,
                        "stage": stage,
                        "error": error,
                        "count": group.count,
                        "replayed": group.replayed,
                        "last": timestamp(group.last_ms),
                        "message": group.message,
                    }
                    for (topic, stage, error), group in groups.items()
                ]
            }
        )
        return
    if not groups:
        print("There are no dead letters.")
        return
    rows = [
        (topic, stage, error.rpartition(".")[2], group.count, group.replayed, timestamp(group.last_ms), group.message)
        for (topic, stage, error), group in groups.items()
    ]
    print_table(("topic", "stage", "error", "letters", "replayed", "last", "last message"), rows)


@app.command("show")
def show(
    topic: TopicArgument = None,
    partition: PartitionOption = None,
    offset: OffsetOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="The newest so many of each topic.")] = 20,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show dead letters: where each came from, its error, and the beginning of its value (the whole with --json)."""
    with errors_reported():
        context = load(config, home)
    found = run(_shown(context, topic, partition, offset, limit))
    if json:
        print_json({"dead_letters": [_described(letter, replayed) for letter, replayed in found]})
        return
    if not found:
        print("There are no such dead letters.")
    for letter, replayed in found:
        _print_letter(letter, replayed)


@app.command("replay")
def replay_letters(
    topic: TopicArgument = None,
    partition: PartitionOption = None,
    offset: OffsetOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every letter that was not replayed yet.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also letters that were replayed before.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also letters that are superseded: each becomes a new change.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be published, and publish nothing.")
    ] = False,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Publish dead letters again to the topics that they came from, each letter once.

    A producer's change that a store refused is submitted as a new change instead, because its version is old by now.
    A letter is superseded, and left out, if something newer was accepted for its document since.
    Exit code 3: some letters were left out.
    """
    with errors_reported():
        if not everything and (topic is None or offset is None):
            raise CommandError(
                "Which dead letters?", "Name a topic and --offset (and --partition), or give --all.", USAGE_ERROR
            )
        if everything and offset is not None:
            raise CommandError("--all and --offset exclude each other.", "", USAGE_ERROR)
        context = load(config, home)

    async def replayed() -> list[Replayed]:
        selection = Selection(await _topics(context, topic), partition, offset, again)
        return await _replayed(context, selection, force, dry_run)

    done = run(replayed())
    published = [step for step in done if step.state == "published"]
    left_out = [step for step in done if step.state != "published"]
    if json:
        print_json(
            {
                "published": not dry_run,
                "count": len(published),
                "left_out": len(left_out),
                "letters": [_step(step) for step in done],
            }
        )
    else:
        _print_replay(published, left_out, dry_run)
    if left_out:
        raise typer.Exit(DIFFERENCES)


def _print_replay(published: list[Replayed], left_out: list[Replayed], dry_run: bool) -> None:
    counts = Counter((step.topic, step.published_to) for step in published)
    if counts:
        print_table(("dead-letter topic", "published to", "letters"), [(*key, count) for key, count in counts.items()])
    over = [step for step in published if step.newer is not None]
    for heading, steps in (("overwrites", over), ("left out because of", left_out)):
        if steps:
            rows = [(f"{s.topic}/{s.partition}/{s.offset}", s.state, s.why) for s in steps[:_LISTED]]
            print_table(("dead letter", "", heading), rows)
            print(f"… and {len(steps) - _LISTED} more: --json lists all" if len(steps) > _LISTED else "")
    print(f"{'To publish' if dry_run else 'Published'} again: {amount(len(published), 'dead letter')}.")
    if left_out:
        print(f"Left out: {amount(len(left_out), 'dead letter')}. --force publishes superseded ones as new changes.")


async def _topics(context: Context, topic: str | None) -> tuple[str, ...]:
    known = await sources(context.bootstrap, context.settings)
    if topic is None:
        return known
    source = topic.removesuffix(SUFFIX)
    if source not in known:
        names = ", ".join(known) or "none yet (`crossfade topics apply` makes them)"
        raise CommandError(f"{source} has no dead-letter topic.", f"There are: {names}.", USAGE_ERROR)
    return (source,)


async def _grouped(context: Context) -> dict[tuple[str, str, str], _Group]:
    groups: dict[tuple[str, str, str], _Group] = {}
    topics = await _topics(context, None)
    replays = await replays_of(context.bootstrap, [name + SUFFIX for name in topics])
    for topic in topics:
        async for letter in letters(context.bootstrap, topic):
            group = groups.setdefault((topic, letter.stage, letter.error_class), _Group())
            group.count += 1
            group.replayed += letter.letter in replays
            if letter.letter.timestamp_ms >= group.last_ms:
                group.last_ms, group.message = letter.letter.timestamp_ms, letter.message
    return groups


async def _shown(
    context: Context, topic: str | None, partition: int | None, offset: int | None, limit: int
) -> list[tuple[DeadLetter, bool]]:
    topics = await _topics(context, topic)
    selection = Selection(topics, partition, offset, again=True)
    replays = await replays_of(context.bootstrap, [name + SUFFIX for name in topics])
    found: list[tuple[DeadLetter, bool]] = []
    for name in topics:
        newest: list[tuple[DeadLetter, bool]] = []
        size = 0
        async for letter in letters(context.bootstrap, name):
            if selection.takes(letter.letter):
                newest.append((letter, letter.letter in replays))
                size += size_of(letter.original)
                while len(newest) > limit or (size > _SHOWN_BYTES and len(newest) > 1):
                    size -= size_of(newest.pop(0)[0].original)
        found += newest
    return found


async def _replayed(context: Context, selection: Selection, force: bool, dry_run: bool) -> list[Replayed]:
    bus, captured = AiokafkaBus(context.settings.kafka), CapturedLetters(context.settings)
    now_ms = int(time.time() * 1000)
    try:
        return await replay(
            context.bootstrap,
            bus,
            selection,
            now_ms=now_ms,
            dry_run=dry_run,
            force=force,
            captured=captured,
            collections=context.settings.collections,
            known_epochs=captured.epochs,
        )
    finally:
        await captured.close()
        await bus.close()


def _described(letter: DeadLetter, replayed: bool) -> dict[str, Any]:
    original = letter.original
    return {
        "dead_letter_topic": letter.letter.topic,
        "partition": letter.letter.partition,
        "offset": letter.letter.offset,
        "time": timestamp(letter.letter.timestamp_ms),
        "topic": original.topic,
        "original_partition": letter.partition,
        "original_offset": letter.offset,
        "stage": letter.stage,
        "error": letter.error_class,
        "message": letter.message,
        "attempts": letter.attempt,
        "replayed": replayed,
        "records_not_read": letter.unread,
        "cut": dict(letter.cut),
        "key": _text(original.key),
        "headers": [[name, _text(value)] for name, value in original.headers],
        "value": _text(original.value),
    }


def _print_letter(letter: DeadLetter, replayed: bool) -> None:
    described = _described(letter, replayed)
    value = described.pop("value") or "(none: a deletion)"
    headers = described.pop("headers")
    print_table(("", ""), [*described.items(), *((f"header {name}", text) for name, text in headers)])
    shown = value[:_PREVIEW_BYTES]
    print(f"{shown}{f'… ({len(value)} characters, whole with --json)' if len(value) > len(shown) else ''}\n")


def _step(step: Replayed) -> dict[str, Any]:
    return {
        "dead_letter_topic": step.topic,
        "partition": step.partition,
        "offset": step.offset,
        "published_to": step.published_to or None,
        "state": step.state,
        "why": step.why,
        "newer": None if step.newer is None else asdict(step.newer),
    }


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")
