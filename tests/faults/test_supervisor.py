"""The real worker under its supervisor: killed, frozen, orphaned, or misconfigured.

The unit tests cover the supervisor's policy.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest

from stack.layout import StackAddresses
from tests.faults.closing import Closing, closing
from tests.flow.site import eventually

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


@pytest.fixture
async def ground(stack: StackAddresses, stack_home: Path, tmp_path: Path) -> AsyncIterator[Closing]:
    async with closing(stack, stack_home, tmp_path) as made:
        yield made


def worker_of(ground: Closing) -> int:
    """Return the process id of the worker that wrote the newest ready file; 0 if there is none."""
    try:
        newest = max(ground.config.parent.glob("ready-*.json"), key=lambda path: path.stat().st_mtime)
        return int(json.loads(newest.read_text())["pid"])
    except (ValueError, FileNotFoundError):
        return 0


async def test_a_killed_and_a_frozen_worker_are_replaced_on_the_same_port_and_nothing_is_missed(
    ground: Closing,
) -> None:
    await ground.configure({"a": "postgres"}, "stall_s = 6.0\ndrain_s = 4.0\n")
    await ground.worker.start()
    await ground.same("a")
    for number, how in enumerate((signal.SIGKILL, signal.SIGSTOP)):
        before = worker_of(ground)
        os.kill(before, how)
        await ground.tables["a"].execute(
            f"insert into {{t}} (id, title, body, kind, line) values ('k{number}', 't', 'while it is away', 'note', 1)"
        )

        async def replaced(before: int = before) -> bool:
            now = worker_of(ground)
            try:
                return now not in {0, before} and (await ground.page())[0] == 200
            except httpx.HTTPError:
                return False

        await eventually(replaced, f"another worker is ready after {how.name}")
        assert not psutil.pid_exists(before)
        await ground.same("a")


async def test_a_worker_whose_supervisor_was_killed_drains_and_ends(ground: Closing) -> None:
    await ground.configure({"a": "postgres"})
    await ground.worker.start()
    orphan = worker_of(ground)
    supervisor = psutil.Process(orphan).ppid()
    # The supervisor is small, because it imports nothing else of the project.
    assert psutil.Process(supervisor).memory_info().rss < 40 * 2**20
    os.kill(supervisor, signal.SIGKILL)

    ground.worker.forget()

    async def ended() -> bool:
        return not psutil.pid_exists(orphan)

    await eventually(ended, "the worker ended by itself")
    await ground.worker.start()
    await ground.same("a")


async def test_a_mistake_in_the_configuration_ends_both_at_once_with_what_is_wrong(ground: Closing) -> None:
    await ground.configure({"a": "postgres"})
    await ground.tables["a"].execute("alter table {t} drop column crossfade_version")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from operations.cli import main; main()"),
        *("worker", "--config", str(ground.config), "--home", str(ground.home)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, output = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert output.count(b"ALTER TABLE") == 1
