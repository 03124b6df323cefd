"""Daemons, state and privileges of the local stack. None of its servers is started."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from connectors.errors import TaskFailed
from operations.commands import stack as commands
from stack import privileges
from stack.layout import PORT_NAMES, Layout, new_state, read_addresses, read_state, write_state
from stack.privileges import unprivileged
from stack.processes import Daemon, start_mark
from stack.stack import LocalStack

SLEEPER = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(300)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(300)",
)


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon("sleeper", tmp_path / "sleeper.json", tmp_path / "sleeper.log")


async def wait_for_log(daemon: Daemon) -> None:
    for _ in range(400):
        if "up" in daemon.log_tail():
            return
        await asyncio.sleep(0.025)
    pytest.fail("the process wrote nothing")


async def test_a_daemon_is_found_again_by_its_record(daemon: Daemon, tmp_path: Path) -> None:
    pid = daemon.start(SLEEPER, tmp_path)
    assert Daemon("sleeper", tmp_path / "sleeper.json", tmp_path / "sleeper.log").pid == pid
    assert os.getsid(pid) == pid
    await daemon.stop(signal.SIGTERM, 10)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert daemon.recorded() is None


async def test_a_daemon_that_ignores_the_signal_is_killed_after_its_bound(daemon: Daemon, tmp_path: Path) -> None:
    pid = daemon.start(STUBBORN, tmp_path)
    await wait_for_log(daemon)
    await daemon.stop(signal.SIGTERM, 0.2)
    assert start_mark(pid) is None


async def test_a_process_that_got_the_pid_of_a_daemon_is_never_killed(daemon: Daemon, tmp_path: Path) -> None:
    stranger = psutil.Popen(SLEEPER, stdout=subprocess.DEVNULL)
    try:
        (tmp_path / "sleeper.json").write_text(json.dumps({"pid": stranger.pid, "started": "an-earlier-boot:1"}))
        assert daemon.pid is None
        daemon.kill()
        await daemon.stop(signal.SIGTERM, 1)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_killed_daemon_counts_as_gone_before_anyone_reaps_it(daemon: Daemon, tmp_path: Path) -> None:
    pid = daemon.start(SLEEPER, tmp_path)
    os.kill(pid, signal.SIGKILL)
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert daemon.pid is None
    record = daemon.recorded()
    assert record is not None
    assert record.pid == pid


def test_a_program_that_is_not_there_is_a_message(daemon: Daemon, tmp_path: Path) -> None:
    with pytest.raises(TaskFailed, match="cannot be started"):
        daemon.start(["/nowhere/at-all"], tmp_path)


def test_state_is_remembered_and_private(tmp_path: Path) -> None:
    state = new_state()
    assert len(set(state.ports.values())) == len(PORT_NAMES)
    assert read_addresses(tmp_path) is None
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    addresses = read_addresses(tmp_path)
    assert addresses is not None
    assert addresses.mariadb is None
    assert stat.S_IMODE(Layout(tmp_path).state_file.stat().st_mode) == 0o600


def test_damaged_state_is_a_message(tmp_path: Path) -> None:
    Layout(tmp_path).state_file.write_text('{"ports": 3}')
    with pytest.raises(TaskFailed, match="damaged"):
        read_addresses(tmp_path)


def test_a_part_brings_what_it_needs_and_unknown_parts_are_refused(tmp_path: Path) -> None:
    statuses = asyncio.run(LocalStack(tmp_path, frozenset({"connect"})).status())
    assert [part.name for part in statuses] == ["kafka", "connect"]
    with pytest.raises(TaskFailed, match="no part") as refused:
        LocalStack(tmp_path, frozenset({"oracle"}))  # type: ignore[arg-type]  # a name from the command line
    assert "connect" in refused.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_root_gives_up_its_rights_and_still_reads_its_private_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("here")
    secret.chmod(0o600)
    try:
        user = unprivileged(tmp_path, tmp_path / "data", Path("/bin/sh"))
    except TaskFailed as error:
        pytest.skip(error.message)
    user.own(secret)
    done = subprocess.run(
        user.command(["sh", "-c", f"id -u; cat {secret}"]), capture_output=True, text=True, check=False
    )
    identity, _, content = done.stdout.partition("\n")
    assert identity != "0"
    assert content == "here"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_without_user_namespaces_a_system_user_gets_a_way_to_its_data_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(privileges, "_namespace", lambda: None)
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folder is closed to other users
        Path(folder).chmod(0o755)
        home = Path(folder) / "home"
        Layout(home).create()
        data = Layout(home).data("postgres")
        try:
            user = unprivileged(home, data, Path("/bin/sh"))
        except TaskFailed as error:
            pytest.skip(error.message)
        data.mkdir()
        user.own(data)
        script = f"id -u; echo mine > {data}/file && cat {data}/file; ls {home} || echo closed"
        done = subprocess.run(user.command(["sh", "-c", script]), capture_output=True, text=True, check=False)
    identity, *rest = done.stdout.split()
    assert identity != "0"
    assert rest == ["mine", "closed"]


def test_status_before_the_first_up_fails_and_prints_one_document(tmp_path: Path) -> None:
    result = CliRunner().invoke(commands.app, ["status", "--home", str(tmp_path), "--json"])
    assert result.exit_code == 1
    output = json.loads(result.stdout)
    assert {part["detail"] for part in output["parts"]} == {"never started"}
    assert output["collections"] == []


def test_down_before_the_first_up_is_done_at_once(tmp_path: Path) -> None:
    result = CliRunner().invoke(commands.app, ["down", "--home", str(tmp_path / "none")])
    assert result.exit_code == 0
    assert not (tmp_path / "none").exists()
