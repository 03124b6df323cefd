"""`crossfade demo`: the demonstration on the command line. What it shows is in `operations.demo`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from operations.context import (
    DIFFERENCES,
    PANEL_RUN,
    HomeOption,
    JsonOption,
    home_folder,
    print_json,
    print_table,
    run,
    say,
)

if TYPE_CHECKING:
    from operations.demo.run import Report

app = typer.Typer()


@app.command(rich_help_panel=PANEL_RUN)
def demo(
    documents: Annotated[int, typer.Option("--documents", min=100, help="Documents to fill the table with.")] = 5000,
    changes: Annotated[int, typer.Option("--changes", min=20, help="Events to publish while it runs.")] = 300,
    keep: Annotated[bool, typer.Option("--keep", help="Leave stack and worker running.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show the main job on this machine: table to Qdrant, live writes, questions, the proof, and the phases to primary.

    Exit code 3: the stores differ, the counts do not balance, or a question got no answer.
    """
    # It needs the same modules as a worker, and they take a second to import.
    from migration.verify.collection import verify_collection  # noqa: PLC0415
    from operations.demo.run import run_demo  # noqa: PLC0415

    place = home_folder(home)
    report = run(run_demo(place, documents, changes, verify_collection, say, keep=keep))
    if json:
        rollout = {**asdict(report.rollout), "timeline": [each.model_dump() for each in report.rollout.timeline]}
        print_json({**{name: getattr(report, name) for name in report.__dataclass_fields__}, "rollout": rollout})
    else:
        _print(report, place, keep)
    balanced = report.applied + report.superseded + report.dead_lettered == report.submitted
    if report.differences or not balanced or report.answered != report.questions or report.rollout.failed:
        raise typer.Exit(DIFFERENCES)


def _print(report: Report, home: Path, keep: bool) -> None:
    rows = [(example["question"], example["served_by"], example["best"]) for example in report.examples]
    print_table(("question", "from", "best document"), rows, title="Some questions, and the best hit of each backend")
    print()
    ends = f"{report.applied} applied + {report.superseded} superseded + {report.dead_lettered} dead-lettered"
    facts = [
        ("documents in the table at the start", report.documents),
        ("backfilled by capture's snapshot in", f"{report.backfill_s} s"),
        ("events published", report.submitted),
        ("and what became of them", ends),
        ("rows written by SQL meanwhile", report.direct_writes),
        ("questions answered meanwhile", f"{report.answered} of {report.questions}"),
        ("publish → searchable", _times(report.freshness_ms)),
        ("question → answer", _times(report.answer_ms)),
        ("differences between table and Qdrant", report.differences),
        (
            "questions asked while it was moved to primary",
            f"{report.rollout.asked}, {report.rollout.failed} unanswered",
        ),
        ("a guard brought it back from a hanging Qdrant in", f"{report.rollout.guard_s} s"),
        ("took", f"{report.total_s} s"),
    ]
    print_table(("what was counted", ""), facts)
    print()
    print_table(
        ("at", "phase", "by", "why"),
        [
            (
                f"{(each.decided_at_ms - first.decided_at_ms) / 1000:.1f} s",
                f"{each.before} → {each.after}",
                each.command.by,
                each.command.reason,
            )
            for each in report.rollout.timeline
            for first in report.rollout.timeline[:1]
        ],
        title="The rollout, with one seeded regression",
    )
    print("\nWhat to try next:")
    for line in _next(home, keep):
        print(f"  {line}")


def _next(home: Path, keep: bool) -> tuple[str, ...]:
    if not keep:
        return ("crossfade demo --keep, then your own questions with crossfade ask",)
    place = f"--home {home} --config {home / 'demo.toml'}"
    return (
        f'crossfade ask "how do I sort a list" {place}',
        f"crossfade verify {place}",
        f"kill {_worker(home)}; crossfade down --home {home}    (ends the worker, then the stack)",
    )


def _worker(home: Path) -> int:
    return int(orjson.loads((home / "run" / "worker-ready.json").read_bytes())["pid"])


def _times(of: dict[str, float]) -> str:
    return ", ".join(f"{name} {value} ms" for name, value in of.items())
