"""The supervisor over real processes: scripts that act as a worker, and record in files what happened to them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from stack.supervisor import FAILED, HOPELESS, Plan

START = """
import http.server, json, os, signal, sys, threading, time
from pathlib import Path
folder = Path({folder!r})
ready = Path({ready!r})
number = len(list(folder.glob("start-*")))
begun = folder / f"begun-{{number}}"
begun.write_text(str(os.getpid()))
begun.replace(folder / f"start-{{number}}")
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
def be_ready():
    server = http.server.HTTPServer(("127.0.0.1", int(os.environ.get("CROSSFADE_WORKER__HTTP_PORT", "0"))), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made = ready.with_suffix(".new")
    made.write_text(json.dumps({{"port": server.server_address[1], "pid": os.getpid()}}))
    made.replace(ready)
def drain(*_):
    (folder / "drained").touch()
    sys.exit(0)
"""


class Supervised:
    """A supervisor in its own process, and the folder in which its workers leave their traces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def start(self, script: str, **bounds: float) -> subprocess.Popen[str]:
        ready = str(self.folder / "ready.json")
        body = START.format(folder=str(self.folder), ready=ready) + script
        given = {"wait_s": 0.05, "attempts": 3, **bounds}
        plan = {"command": [sys.executable, "-c", body], "ready_file": ready, **given}
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from stack.supervisor import main; main()", json.dumps(plan)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    @property
    def starts(self) -> list[int]:
        """The process ids of the workers, in the order of their starts."""
        paths = sorted(self.folder.glob("start-*"), key=lambda path: int(path.name.removeprefix("start-")))
        return [int(path.read_text()) for path in paths]

    async def ended(self) -> tuple[int, str]:
        assert self.process is not None
        _, output = await asyncio.to_thread(self.process.communicate, timeout=30)
        return self.process.returncode, output

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds():  # noqa: ASYNC110  # the condition depends on other processes
                await asyncio.sleep(0.02)


@pytest.fixture
async def supervised(tmp_path: Path) -> AsyncIterator[Supervised]:
    made = Supervised(tmp_path)
    yield made
    for pid in made.starts:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.communicate()


SERVE = "signal.signal(signal.SIGTERM, drain); be_ready()\nwhile True: time.sleep(0.05)"


async def test_a_killed_worker_is_started_again_and_its_page_keeps_its_port(supervised: Supervised) -> None:
    supervised.start(SERVE)
    ready = supervised.folder / "ready.json"
    await supervised.until(ready.exists)
    before = json.loads(ready.read_text())
    os.kill(before["pid"], signal.SIGKILL)
    await supervised.until(lambda: ready.exists() and json.loads(ready.read_text())["pid"] != before["pid"])
    assert json.loads(ready.read_text())["port"] == before["port"]
    assert not psutil.pid_exists(before["pid"])


async def test_a_worker_that_fails_at_once_again_and_again_is_given_up_with_its_last_lines(
    supervised: Supervised,
) -> None:
    supervised.start("print('the reason of it all', file=sys.stderr); sys.exit(1)")
    code, output = await supervised.ended()
    assert code == FAILED
    assert len(supervised.starts) == 3
    assert "not started again" in output
    assert output.rpartition("Its last lines:")[2].strip().startswith("the reason of it all")


async def test_a_worker_whose_configuration_is_wrong_is_not_started_again(supervised: Supervised) -> None:
    supervised.start(f"sys.exit({HOPELESS})")
    assert (await supervised.ended())[0] == HOPELESS
    assert len(supervised.starts) == 1


async def test_failures_after_steady_work_are_not_counted_together(supervised: Supervised) -> None:
    supervised.start("be_ready(); time.sleep(0.3); sys.exit(1) if number < 4 else drain()", steady_s=0.05, attempts=2)
    code, _ = await supervised.ended()
    assert (code, len(supervised.starts)) == (0, 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_is_passed_on_and_waits_for_the_drain(supervised: Supervised, number: signal.Signals) -> None:
    process = supervised.start(SERVE)
    await supervised.until((supervised.folder / "ready.json").exists)
    process.send_signal(number)
    assert (await supervised.ended())[0] == 0
    assert (supervised.folder / "drained").exists()
    assert len(supervised.starts) == 1


async def test_a_worker_that_does_not_drain_in_its_limit_is_killed_and_that_is_a_failure(
    supervised: Supervised,
) -> None:
    process = supervised.start(SERVE.replace("drain)", "lambda *_: None)"), drain_s=0.2)
    await supervised.until((supervised.folder / "ready.json").exists)
    process.terminate()
    code, output = await supervised.ended()
    assert code == FAILED
    assert "is killed" in output
    assert not psutil.pid_exists(supervised.starts[0])


async def test_a_worker_that_hangs_is_killed_before_another_is_started(supervised: Supervised) -> None:
    supervised.start(SERVE, stall_s=0.4)
    ready = supervised.folder / "ready.json"
    await supervised.until(ready.exists)
    hung = supervised.starts[0]
    os.kill(hung, signal.SIGSTOP)
    await supervised.until(lambda: len(supervised.starts) > 1)
    assert not psutil.pid_exists(hung)


async def test_a_stop_during_the_pause_before_a_start_ends_it(supervised: Supervised) -> None:
    process = supervised.start("sys.exit(1)", wait_s=60.0, wait_max_s=60.0)
    await supervised.until(lambda: bool(supervised.starts) and not psutil.pid_exists(supervised.starts[0]))
    process.terminate()
    assert (await supervised.ended())[0] == 0
    assert len(supervised.starts) == 1


def test_pauses_grow_to_their_bound() -> None:
    plan = Plan(("worker",), "ready", wait_s=0.5, wait_max_s=4.0)
    assert [plan.pause_s(failures) for failures in (1, 2, 3, 4, 5, 5000)] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_the_supervisor_needs_nothing_but_the_standard_library() -> None:
    code = "import stack.supervisor, sys; print([m for m in ('pydantic', 'typer', 'faust') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
