"""What a command tells its user when it cannot go on. No other exception may reach the user's terminal."""

from __future__ import annotations


class CommandError(Exception):
    """A command failed: `message` says what is wrong, `hint` what to do about it; `exit_code` ends the process."""

    def __init__(self, message: str, hint: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message
