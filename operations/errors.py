"""What a command reports when it cannot go on, with its exit code. Below the command line it is `TaskFailed`."""

from __future__ import annotations

from connectors.errors import TaskFailed


class CommandError(TaskFailed):
    """A command failed; `exit_code` ends the process."""

    def __init__(self, message: str, hint: str = "", exit_code: int = 1) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code
