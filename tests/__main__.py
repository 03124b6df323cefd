"""`python -m tests`: types and all tests, in three processes side by side; what two of them print comes at the end.

Those that need the local stack mostly wait, the others mostly compute; each has a stack of its own. Not by a shell: its
background processes ignore Ctrl-C, and hand that on, as this one must not where it is one.
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
# Contracts that the second process has time for, and faults that the third one has.
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


class Beside(threading.Thread):
    """Runs commands one after the other, whatever they end with, and keeps what they print."""

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
        """End the command that runs, and begin no other."""
        with self._turn:
            self._stopped = True
            if self._running is not None:
                self._running.terminate()


def main() -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children get the default where there is a handler
    with ExitStack() as resources:
        os.environ["CROSSFADE_TEST_MODELS"] = resources.enter_context(tempfile.TemporaryDirectory())
        printed = [resources.enter_context(tempfile.TemporaryFile()) for _ in OTHERS]
        others = [Beside(commands, output) for commands, output in zip(OTHERS, printed, strict=True)]
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
