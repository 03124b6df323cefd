"""`python -m tests`: type checks and all tests, in three concurrent processes.

Tests that need the local stack mostly wait, and the others mostly compute. Each process has a stack of its own. The
output of two of them is printed at the end.

They are not started by a shell: a shell's background processes ignore Ctrl-C, and their children inherit that. This
process may itself be such a background process, but its children must obey Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import IO

PYTEST = (sys.executable, "-m", "pytest", "-m")
STACK = (*PYTEST, "stack and not long")
# Contract tests that the second process has time for, and fault tests that the third one has time for.
SECOND = tuple(
    f"tests/contract/test_{name}.py"
    for name in ("batches_in_bytes", "foreign_records_fuzzed", "key_types", "legacy_agreement")
)
THIRD = tuple(f"tests/faults/test_{name}.py" for name in ("outages", "replaced_points", "supervisor"))
FIRST = (*STACK, "--ignore=tests/faults", "--ignore=tests/stack", *(f"--ignore={path}" for path in SECOND))
OTHERS: tuple[list[tuple[str, ...]], ...] = (
    [(*STACK, "tests/faults", *SECOND, *(f"--ignore={path}" for path in THIRD))],
    [(sys.executable, "-m", "mypy"), (*PYTEST, "not stack and not long"), (*STACK, "tests/stack", *THIRD)],
)


class Background(threading.Thread):
    """Runs commands one after the other, whatever their exit codes, and keeps their output."""

    def __init__(self, commands: Sequence[tuple[str, ...]], printed: IO[bytes]) -> None:
        super().__init__()
        self.codes: list[int] = []
        self._commands, self._printed = commands, printed
        self._running: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._turn = threading.Lock()

    def run(self) -> None:
        """Run the commands."""
        for command in self._commands:
            with self._turn:
                if self._stopped:
                    return
                self._running = subprocess.Popen(command, stdout=self._printed, stderr=subprocess.STDOUT)
            self.codes.append(self._running.wait())

    def stop(self) -> None:
        """End the running command, and start no other."""
        with self._turn:
            self._stopped = True
            if self._running is not None:
                self._running.terminate()


def main() -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # with a handler here, children get the default
    with ExitStack() as resources:
        os.environ["CROSSFADE_TEST_MODELS"] = resources.enter_context(tempfile.TemporaryDirectory())
        printed = [resources.enter_context(tempfile.TemporaryFile()) for _ in OTHERS]
        others = [Background(commands, output) for commands, output in zip(OTHERS, printed, strict=True)]
        for other in others:
            other.start()
        try:
            codes = [subprocess.call(FIRST)]
            for other in others:
                other.join()
                codes += other.codes
        except BaseException:
            for other in others:
                other.stop()
            raise
        for output in printed:
            output.seek(0)
            sys.stdout.write(output.read().decode(errors="replace"))
    return max(map(abs, codes))


if __name__ == "__main__":
    sys.exit(main())
