"""The entry point of `crossfade`, so small that Ctrl-C ends it cleanly also while the rest is being imported."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command and end the process with its exit code; nothing prints a traceback without CROSSFADE_DEBUG=1."""
    try:
        # Not at the top: these take half a second, and nobody would catch what interrupts them.
        import typer  # noqa: PLC0415

        from operations.app import app  # noqa: PLC0415
        from operations.context import told  # noqa: PLC0415

        try:
            with told():
                app()
        except typer.Exit as end:
            sys.exit(end.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
