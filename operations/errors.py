"""The error of a command that cannot go on, with its exit code. Code below the command line raises `TaskFailed`."""

from __future__ import annotations

from connectors.errors import TaskFailed


class CommandError(TaskFailed):
    """A command failed. The process ends with `exit_code`."""

    def __init__(self, message: str, hint: str = "", exit_code: int = 1) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code
