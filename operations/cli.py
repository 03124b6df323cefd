"""The entry point of `crossfade`, so small that Ctrl-C ends it cleanly also while the rest is being imported."""

from __future__ import annotations

import gc
import io
import sys

INTERRUPTED = 130


def print_whole() -> None:
    """Have what is printed on stdout written to its end.

    With PYTHONUNBUFFERED, as containers set it, Python writes once, and a signal ends a write to a pipe where it is.
    """
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        out = sys.stdout
        sys.stdout = open(out.fileno(), "w", encoding=out.encoding, errors=out.errors, buffering=1, closefd=False)  # noqa: SIM115


def main() -> None:
    """Run the command and end the process with its exit code; nothing prints a traceback without CROSSFADE_DEBUG=1."""
    try:
        print_whole()
        gc.set_threshold(50_000, 20, 20)  # nothing of what is imported now is garbage
        # Not at the top: these take half a second, and nobody would catch what interrupts them.
        import typer  # noqa: PLC0415

        from operations.app import command_tree  # noqa: PLC0415
        from operations.context import told  # noqa: PLC0415

        try:
            with told():
                command_tree(next((one for one in sys.argv[1:] if not one.startswith("-")), None))()
        except typer.Exit as end:
            sys.exit(end.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
