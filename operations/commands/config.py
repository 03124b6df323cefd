"""`crossfade config`: finds mistakes before anything starts. The checks are in `migration.preflight.checks`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from domain.legacy import Sql
from migration.preflight.checks import Checked, apply_all, check_all
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
)

app = typer.Typer(no_args_is_help=True, help="The configuration, and what it names.")


@app.callback()
def _group() -> None:
    """Keep `check` a subcommand: Typer would otherwise put its only command in place of the group."""


@app.command("check")
def check(
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Execute the remedies that are SQL, then check again.")
    ] = False,
) -> None:
    """Check the file, the brokers, Connect, Qdrant and each collection's database; show the remedy for each mistake.

    Exit code 3: there are errors. Warnings alone are not errors.
    """
    with errors_reported():
        context = load(config, home)
    checked, executed = run(_checked(context, apply))
    errors = sum(finding.level == "error" for part in checked for finding in part.findings)
    if json:
        print_json(_document(context, checked, executed))
    else:
        for statement in executed:
            print(f"executed: {statement}")
        _print(context, checked, errors)
    if errors:
        raise typer.Exit(DIFFERENCES)


async def _checked(context: Context, apply: bool) -> tuple[list[Checked], list[str]]:
    checked = await check_all(context)
    executed = await apply_all(context, checked) if apply else []
    return (await check_all(context) if executed else checked), executed


def _document(context: Context, checked: list[Checked], executed: list[str]) -> dict[str, Any]:
    return {
        "file": str(context.file) if context.file else None,
        "checked": [part.part for part in checked],
        "executed": executed,
        "findings": [
            {
                "part": part.part,
                "level": finding.level,
                "subject": finding.subject,
                "message": finding.message,
                "remedy": finding.shown_remedy,
                "mend": finding.shown_remedy,
            }
            for part in checked
            for finding in part.findings
        ],
    }


def _print(context: Context, checked: list[Checked], errors: int) -> None:
    rows = [
        (finding.level, part.part, finding.subject, finding.message)
        for part in checked
        for finding in sorted(part.findings, key=lambda finding: finding.level)
    ]
    if rows:
        print_table(("level", "part", "subject", "what is wrong"), rows)
    remedies = [finding.remedy for part in checked for finding in part.findings if finding.remedy]
    if remedies:
        print("\nRemedies:")
        for remedy in dict.fromkeys(remedies):
            print(f"  {remedy};" if isinstance(remedy, Sql) else f"  {remedy.shown}")
    file = context.file or "no file, defaults and environment only"
    counts = f"{amount(errors, 'error')}, {amount(len(rows) - errors, 'warning')}"
    print(f"{counts} ({file}; checked: {', '.join(part.part for part in checked)}).")
