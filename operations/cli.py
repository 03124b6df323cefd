"""The entry point of `crossfade`. It is so small that Ctrl-C ends it cleanly even while the rest is being imported."""

from __future__ import annotations

import gc
import io
import sys

INTERRUPTED = 130


def print_whole() -> None:
    """Make sure that everything printed to stdout is written completely.

    With PYTHONUNBUFFERED, which containers set, Python writes only once, and a signal cuts a write to a pipe short.
    """
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        out = sys.stdout
        sys.stdout = open(out.fileno(), "w", encoding=out.encoding, errors=out.errors, buffering=1, closefd=False)  # noqa: SIM115


def main() -> None:
    """Run the command and end the process with its exit code. No traceback is printed without CROSSFADE_DEBUG=1."""
    try:
        print_whole()
        gc.set_threshold(50_000, 20, 20)  # the imports that follow create no garbage
        # Not imported at the top: these imports take half a second, and nothing would catch an interrupt there.
        import typer  # noqa: PLC0415

        from operations.app import command_tree  # noqa: PLC0415
        from operations.context import errors_reported  # noqa: PLC0415

        try:
            with errors_reported():
                command_tree(next((one for one in sys.argv[1:] if not one.startswith("-")), None))()
        except typer.Exit as end:
            sys.exit(end.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
