"""`python -m tests`: all tests, in two processes side by side; what one of them prints comes when the other has ended.

Those that need the local stack mostly wait, the others mostly compute. Not by a shell: its background processes ignore
Ctrl-C, and hand that on, as this one must not where it is one.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile

PYTEST = (sys.executable, "-m", "pytest", "-m")


def main() -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children get the default where there is a handler
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen((*PYTEST, "not stack and not long"), stdout=said, stderr=subprocess.STDOUT) as others,
    ):
        try:
            with_stack = subprocess.call((*PYTEST, "stack and not long"))
            without = others.wait()
        except BaseException:
            others.terminate()
            raise
        said.seek(0)
        sys.stdout.write(said.read().decode(errors="replace"))
    return with_stack or without


if __name__ == "__main__":
    sys.exit(main())
