"""`crossfade demo` on the command line. What it shows is in operations/demo."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from operations.commands.pipeline import verify_collection
from operations.demo.run import COLLECTION, Report, as_json, run_demo
from operations.stack.layout import default_home

app = typer.Typer(no_args_is_help=True, add_completion=False)
_errors = Console(stderr=True, highlight=False)
DIFFERENCES_FOUND = 3


@app.command()
def demo(
    documents: Annotated[int, typer.Option(min=100, help="Documents to fill the table with.")] = 5000,
    changes: Annotated[int, typer.Option(min=20, help="Events to publish while it runs.")] = 300,
    keep: Annotated[bool, typer.Option("--keep", help="Leave stack and worker running.")] = False,
    as_json_: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    home: Annotated[Path | None, typer.Option("--home", envvar="CROSSFADE_HOME", help="Folder of the data.")] = None,
) -> None:
    """Show the main job on this machine: table to Qdrant, live writes from both sides, questions, and the proof."""
    place = home or default_home()
    verify = partial(verify_collection, repair=False)
    report = asyncio.run(run_demo(place, documents, changes, verify, _progress, keep=keep))
    if as_json_:
        print(as_json(report))
    else:
        _print(report, place, keep)
    balanced = report.applied + report.superseded + report.dead_lettered == report.submitted
    if report.differences or not balanced or report.answered != report.questions:
        raise typer.Exit(DIFFERENCES_FOUND)


def _progress(text: str) -> None:
    _errors.print(text, markup=False, soft_wrap=True)


def _print(report: Report, home: Path, keep: bool) -> None:
    console = Console(highlight=False)
    examples = Table(title="some questions, and the best hit of each backend", box=None, pad_edge=False)
    for column in ("question", "from", "best document"):
        examples.add_column(column)
    for example in report.examples:
        examples.add_row(example["question"], str(example["served_by"]), str(example["best"]))
    console.print(examples)
    facts = Table(title="what was counted", box=None, pad_edge=False, show_header=False)
    facts.add_row("documents in the table at the start", str(report.documents))
    facts.add_row("backfilled by capture's snapshot in", f"{report.backfill_s} s")
    facts.add_row("events published", str(report.submitted))
    ends = f"{report.applied} applied + {report.superseded} superseded + {report.dead_lettered} dead-lettered"
    facts.add_row("  and what became of them", ends)
    facts.add_row("rows written by SQL meanwhile", str(report.direct_writes))
    facts.add_row("questions answered meanwhile", f"{report.answered} of {report.questions}")
    facts.add_row("publish → searchable", _times(report.freshness_ms))
    facts.add_row("question → answer", _times(report.answer_ms))
    facts.add_row("differences between table and Qdrant", str(report.differences))
    facts.add_row("took", f"{report.total_s} s")
    console.print(facts)
    if keep:
        config = home / "demo.toml"
        console.print(f'next: crossfade ask --config {config} "how do I sort a list"')
        console.print(f"      crossfade verify {COLLECTION} --config {config}")
        console.print("      crossfade status; crossfade down")
    else:
        console.print("next: crossfade demo --keep, then ask your own questions with crossfade ask")


def _times(of: dict[str, float]) -> str:
    return ", ".join(f"{name} {value} ms" for name, value in of.items())
