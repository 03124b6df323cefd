"""`python -m tests`: all tests, in three processes side by side; what two of them print comes when the first has ended.

Those that need the local stack mostly wait, the others mostly compute. Faults have a stack of their own. Not by a
shell: its background processes ignore Ctrl-C, and hand that on, as this one must not where it is one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack

PYTEST = (sys.executable, "-m", "pytest", "-m")
FIRST = ("stack and not long", "--ignore=tests/faults")
OTHERS = (("stack and not long", "tests/faults"), ("not stack and not long",))


def main() -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children get the default where there is a handler
    with ExitStack() as resources:
        os.environ["CROSSFADE_TEST_MODELS"] = resources.enter_context(tempfile.TemporaryDirectory())
        running = []
        for arguments in OTHERS:
            said = resources.enter_context(tempfile.TemporaryFile())
            started = subprocess.Popen((*PYTEST, *arguments), stdout=said, stderr=subprocess.STDOUT)
            running.append((resources.enter_context(started), said))
        try:
            ended = [subprocess.call((*PYTEST, *FIRST)), *(process.wait() for process, _ in running)]
        except BaseException:
            for process, _ in running:
                process.terminate()
            raise
        for _, said in running:
            said.seek(0)
            sys.stdout.write(said.read().decode(errors="replace"))
    return max(map(abs, ended))


if __name__ == "__main__":
    sys.exit(main())
