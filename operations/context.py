"""What every command shares: common options, settings with addresses, error messages, tables and JSON documents.

Results go to stdout, everything else to stderr. No command prints a traceback unless CROSSFADE_DEBUG is set.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import orjson
import typer
from rich.console import Console
from rich.table import Table

from connectors.errors import CrossfadeError, Misconfigured, StoreUnavailable, TableNotReady, TaskFailed
from migration.installation import Installation
from operations.configuration import find_config, read_settings, resolve
from operations.errors import CommandError
from stack.layout import default_home, read_addresses

FAILED = 1
USAGE_ERROR = 2
DIFFERENCES = 3
INTERRUPTED = 130
# The headings under which `crossfade --help` lists the commands.
PANEL_RUN = "Run"
PANEL_LOOK = "Look and repair"
PANEL_SET_UP = "Set up"
_PIPED_WIDTH = 400

T = TypeVar("T")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="The configuration file (default: $CROSSFADE_CONFIG, or crossfade.toml here)."),
]
HomeOption = Annotated[
    Path | None, typer.Option("--home", help="The data folder (default: $CROSSFADE_HOME, or ~/.crossfade).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
CollectionArgument = Annotated[
    str | None, typer.Argument(metavar="COLLECTION", help="Its name (default: the only one that is configured).")
]


@dataclass(frozen=True, slots=True)
class Context(Installation):
    """An installation, and the file that its settings came from (None: no file)."""

    file: Path | None

    def collection(self, name: str | None) -> str:
        """Return `name` if it is a configured collection, or the only collection if `name` is None.

        Raises CommandError otherwise.
        """
        names = list(self.settings.collections)
        if name in names:
            return str(name)
        if name is None and len(names) == 1:
            return names[0]
        wrong = "Which collection?" if name is None else f"There is no collection {name!r}."
        raise CommandError(wrong, f"Configured in {self.file or 'no file'}: {', '.join(names) or 'none'}.", USAGE_ERROR)


def load(config: Path | None, home: Path | None) -> Context:
    """Read the settings. Raises CommandError for any mistake in them."""
    folder = home_folder(home)
    file = find_config(config, folder, os.environ)
    settings = read_settings(file, folder, os.environ)
    return Context(resolve(settings, read_addresses(folder)), folder, file)


def home_folder(home: Path | None) -> Path:
    """Return the data folder as an absolute path."""
    return home.expanduser().absolute() if home else default_home()


def run(main: Coroutine[Any, Any, T], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> T:
    """Run a command's work. Errors are reported and end the process with their exit code; Ctrl-C cancels the work."""
    with errors_reported(), asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)


@contextmanager
def errors_reported() -> Iterator[None]:
    """Turn every error into a message on stderr and an exit code."""
    debug = bool(os.environ.get("CROSSFADE_DEBUG"))
    if not debug:
        # These libraries log to stderr, some with a traceback, what the command reports in one sentence.
        for name in ("aiokafka", "asyncio", "asyncpg", "stamina"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        message, hint, code = explained(error)
        print(f"crossfade: {message}", file=sys.stderr)
        if hint:
            print(hint, file=sys.stderr)
        raise typer.Exit(code) from None


def explained(error: Exception) -> tuple[str, str, int]:
    """Return the message for an error, a hint on what to do about it, and the exit code."""
    if isinstance(error, TaskFailed):
        code = error.exit_code if isinstance(error, CommandError) else FAILED
        return error.message, error.hint, USAGE_ERROR if isinstance(error, TableNotReady) else code
    if isinstance(error, StoreUnavailable):
        return str(error), "`crossfade status` shows what runs; `crossfade up` starts the local stack.", FAILED
    if isinstance(error, Misconfigured):
        return str(error), "`crossfade config check` looks at everything that is configured.", FAILED
    if isinstance(error, CrossfadeError | OSError):
        return str(error) or type(error).__name__, "", FAILED
    return (
        f"an unexpected error: {type(error).__name__}: {error}",
        "Run it again with CROSSFADE_DEBUG=1 to see where, and please report it.",
        FAILED,
    )


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """Print a table for people on stdout. No cell is cut off or read as markup."""
    table = Table(*columns, title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(str(cell).replace("[", "\\[") for cell in row))
    for column in table.columns:
        column.overflow = "fold"
    # Output that is not shown on a terminal need not be folded to the width of a screen.
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else _PIPED_WIDTH).print(table)


def renamed(old: str, given: T | None, today: str, value: T) -> T:
    """Return the value of a renamed option. If it was given under its old name, warn and return that value."""
    if given is None:
        return value
    say(f"crossfade: {old} is called {today} now.")
    return given


def amount(number: int, noun: str) -> str:
    """Return a number with its noun: 1 document, 2 documents."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def say(message: str) -> None:
    """Print progress or a note on stderr."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Show on stderr how many items are done so far; show nothing if stderr is not a terminal."""
    with Console(stderr=True, highlight=False).status(what) as status:
        yield lambda count: status.update(f"{what}: {count}")
