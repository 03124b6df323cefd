"""A real worker on the session's stack, as a user starts it: `crossfade worker` with its own configuration file."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from pathlib import Path

from connectors.failpoints import VARIABLE
from migration.preflight.tables import check_tables
from operations.configuration import read_settings, resolve
from schemas.settings import Settings
from stack.layout import read_addresses

START_BOUND_S = 360.0  # the first worker may wait for the export of the model
STOP_BOUND_S = 40.0
COMMAND_BOUND_S = 120.0
MAIN = (sys.executable, "-c", "from operations.cli import main; main()")


def settings_of(config: Path, home: Path) -> Settings:
    return resolve(read_settings(config, home, {}), read_addresses(home))


async def remedy(settings: Settings) -> None:
    await check_tables(settings, lambda _: None, apply=True)


async def command(config: Path, home: Path, *arguments: str, failpoint: str = "") -> tuple[int, str]:
    """Run `crossfade` to its end or to a failpoint; return its exit code and its output on stdout."""
    process = await asyncio.create_subprocess_exec(
        *MAIN,
        *(*arguments, "--config", str(config), "--home", str(home)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, VARIABLE: failpoint},
    )
    try:
        async with asyncio.timeout(COMMAND_BOUND_S):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, printed.decode()


class WorkerProcess:
    """A worker that a test can start, and end by SIGTERM, any number of times. It must then exit with code 0."""

    def __init__(self, config: Path, home: Path, environ: Mapping[str, str]) -> None:
        self._config = config
        self._home = home
        self._environ = {**os.environ, **environ}
        self._log = config.with_name("worker.log")
        self._process: Process | None = None
        self.port = 0

    async def start(self) -> None:
        """Start the worker. Return once every agent consumes and `port` is the port of the health page."""
        ready = self._config.with_name(f"ready-{os.urandom(4).hex()}.json")
        place = ("--config", str(self._config), "--home", str(self._home))
        with self._log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(*MAIN, "worker", *place, "--ready-file", str(ready)), stdout=output, stderr=output, env=self._environ
            )
        self._process = process
        async with asyncio.timeout(START_BOUND_S):
            while not ready.exists() or not ready.read_text():
                assert process.returncode is None, self._log.read_text()
                await asyncio.sleep(0.1)
        self.port = json.loads(ready.read_text())["port"]

    async def stop(self) -> None:
        """End the worker, even if it is not ready yet. Do nothing if none runs."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_BOUND_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        assert process.returncode == 0, self._log.read_text()

    def forget(self) -> None:
        """Forget the worker, because the test ended it in its own way."""
        self._process = None

    async def ended(self) -> int:
        """Wait until the worker ends by itself; return its exit code."""
        process, self._process = self._process, None
        assert process is not None
        async with asyncio.timeout(STOP_BOUND_S):
            return await process.wait()
