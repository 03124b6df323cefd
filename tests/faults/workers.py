"""Worker processes that a test can kill, freeze, thaw, arm with failpoints, and start again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from connectors.failpoints import FILE, FIRED

START_BOUND_S = 90.0
STOP_BOUND_S = 40.0
_MAIN = (sys.executable, "-c", "from operations.cli import main; main()")


class Worker:
    """One `crossfade worker`. Every wait is bounded, and the worker runs when `start` returns."""

    def __init__(self, name: str, config: Path, home: Path, folder: Path) -> None:
        self._config, self._home = config, home
        self._armed, self._fired = folder / f"{name}-failpoint", folder / f"{name}-fired"
        self._ready = folder / f"{name}-ready.json"
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.name = name
        self.restarts = 0
        self.start_s: list[float] = []

    @property
    def alive(self) -> bool:
        """Whether the process exists, also while it is suspended."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Launch the process without waiting for it; see `ready`."""
        assert not self.alive
        for mark in (self._armed, self._fired, self._ready):
            mark.unlink(missing_ok=True)
        arguments = [
            "worker",
            "--unsupervised",
            "--config",
            self._config,
            "--home",
            self._home,
            "--ready-file",
            self._ready,
        ]
        environ = os.environ | {FILE: str(self._armed), FIRED: str(self._fired)}
        with self.log.open("ab") as output:
            self._process = subprocess.Popen([*_MAIN, *map(str, arguments)], stdout=output, stderr=output, env=environ)

    async def ready(self) -> bool:
        """Wait until every agent consumes. Return False if the worker ended first."""
        begun = time.monotonic()
        while time.monotonic() < begun + START_BOUND_S:
            if self._ready.exists() and self._ready.read_text():
                self.start_s.append(time.monotonic() - begun)
                return True
            if not self.alive:
                return False
            await asyncio.sleep(0.1)
        raise AssertionError(f"{self.name} was not ready after {START_BOUND_S:.0f} s:\n{self.tail()}")

    async def start(self) -> None:
        """Start the worker, repeatedly if necessary: one that finds a part of the stack away may give up."""
        deadline = time.monotonic() + START_BOUND_S
        while True:
            self.launch()
            if await self.ready():
                return
            self.restarts += 1
            assert time.monotonic() < deadline, f"{self.name} does not start:\n{self.tail()}"
            await asyncio.sleep(0.5)

    @property
    def port(self) -> int:
        """The port of the health page."""
        return int(json.loads(self._ready.read_text())["port"])

    def kill(self) -> None:
        """Kill the process as `kill -9` does, and reap it as a supervisor does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def stop(self) -> int:
        """End the worker in order. Return the exit code, which is -9 if it had to be killed."""
        if self._process is None:
            return 0
        if self.alive:
            self.signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_BOUND_S
            while self.alive and time.monotonic() < deadline:  # noqa: ASYNC110  # another process is waited for
                await asyncio.sleep(0.1)
            if self.alive:
                self.kill()
        code = self._process.wait()
        self._process = None
        return code

    def arm(self, failpoint: str) -> None:
        """Arm a failpoint in the running worker, in place of those armed before."""
        self._fired.unlink(missing_ok=True)
        self._armed.write_text(failpoint)
        self.signal(signal.SIGUSR1)

    async def died(self, bound_s: float) -> bool:
        """Wait for the process to die. Return False if it is still alive after the bound."""
        deadline = time.monotonic() + bound_s
        while self.alive and time.monotonic() < deadline:  # noqa: ASYNC110  # another process is waited for
            await asyncio.sleep(0.02)
        return not self.alive

    @property
    def fired(self) -> bool:
        """Whether a failpoint killed the process."""
        return self._fired.exists()

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
