"""A real worker over the session's stack, as a user starts it: `crossfade worker` with a file of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from operations.configuration import read_settings, resolve
from operations.preparing import check_tables
from operations.stack.layout import read_addresses
from schemas.settings import Settings

START_BOUND_S = 180.0
STOP_BOUND_S = 40.0


def settings_of(config: Path, home: Path) -> Settings:
    return resolve(read_settings(config, home, {}), read_addresses(home))


async def mend(settings: Settings) -> None:
    await check_tables(settings, lambda _: None, mend=True)


@asynccontextmanager
async def running_worker(config: Path, home: Path) -> AsyncIterator[int]:
    """Start a worker, give the port of its health page, and end it with SIGTERM; it must end by itself, and well."""
    ready = config.with_name(f"ready-{os.urandom(4).hex()}.json")
    log = config.with_name("worker.log")
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from operations.cli import main; main()",
            "worker",
            "--config",
            str(config),
            "--home",
            str(home),
            "--ready-file",
            str(ready),
            stdout=output,
            stderr=output,
        )
        try:
            async with asyncio.timeout(START_BOUND_S):
                while not ready.exists():
                    assert process.returncode is None, log.read_text()
                    await asyncio.sleep(0.1)
            yield json.loads(ready.read_text())["port"]
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                try:
                    async with asyncio.timeout(STOP_BOUND_S):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()
    assert process.returncode == 0, log.read_text()
