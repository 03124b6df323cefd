"""The command line as a user sees it: help, exit codes, messages, Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from domain.quarantine import Quarantine, Reason
from migration.status import Progress
from operations import cli
from operations.app import COMMANDS, GROUPS, command_tree
from operations.clients.submissions import batches, submission_record
from operations.commands import stack
from operations.commands.worker import roles_of
from operations.errors import CommandError
from operations.worker import _unless
from schemas.settings import Settings
from stack.part import PartStatus
from stack.stack import LocalStack

CROSSFADE = (sys.executable, "-c", "from operations.cli import main; main()")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CROSSFADE_CONFIG", "CROSSFADE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path / "home"))


def commands(command: Any, path: str = "crossfade") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


APP = command_tree()
TREE = dict(commands(typer.main.get_command(APP)))


def test_the_commands_are_those_that_the_design_names() -> None:
    leaves = {path.removeprefix("crossfade ") for path, command in TREE.items() if not hasattr(command, "commands")}
    assert leaves == {
        "demo", "up", "down", "status", "worker", "submit", "ask", "backfill", "verify", "inspect", "recapture",
        "migrate plan", "migrate start", "migrate status", "migrate pause", "migrate resume",
        "migrate promote", "migrate rollback", "migrate abort", "migrate history", "migrate comparisons",
        "dlt list", "dlt show", "dlt replay", "config check", "topics list", "topics apply",
            "topics adopt", "schemas export",
    }  # fmt: skip


@pytest.mark.parametrize("name", [*(one for names in COMMANDS.values() for one in names), *GROUPS])
def test_a_command_alone_is_the_one_of_the_whole_tree(name: str) -> None:
    alone = dict(commands(typer.main.get_command(command_tree(name))))
    assert [path for path in TREE if path.split()[1:2] == [name]] == [
        path for path in alone if path.split()[1:2] == [name]
    ]
    for path, command in alone.items():
        assert command.help == TREE[path].help
        assert [(one.name, one.opts) for one in command.params] == [(one.name, one.opts) for one in TREE[path].params]


@pytest.mark.parametrize("path", TREE)
def test_every_command_and_each_of_its_options_says_what_it_is_for(path: str) -> None:
    command = TREE[path]
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), parameter.name
    result = CliRunner().invoke(APP, [*path.split()[1:], "--help"])
    assert result.exit_code == 0
    assert f"Usage: {path} [OPTIONS]" in result.stdout


def test_the_version_is_the_packages() -> None:
    result = CliRunner().invoke(APP, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"crossfade {version('crossfade')}\n")


CONFIG = '[kafka]\nbootstrap = "127.0.0.1:1"\n' + "".join(
    f'[collections.{name}]\ntable = "{name}"\nkey = ["id"]\ntext = ["body"]\n' for name in ("first", "second")
)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ("worker --roles writer", 2, "There is no role writer"),
        ("worker --roles ,", 2, "No role is named"),
        ("ask q --route sql", 2, "There is no backend 'sql'"),
        ("ask '' --config one.toml", 2, "That is no question: text: String should have at least 1 character"),
        ("ask --tenant '' q --config one.toml", 2, "That is no question: tenant: String should have at least 1"),
        (f"ask {'q' * 8193} --config one.toml", 2, "text: String should have at most 8192 characters"),
        ("ask q --filter open --config one.toml", 2, "'open' is no filter"),
        ("ask q --config two.toml", 2, "Which collection?"),
        ("ask q --config two.toml --collection third", 2, "Configured in two.toml: first, second"),
        ("ask q", 1, "No Kafka brokers are known"),
        ("verify", 2, "Which collection?"),
        ("submit absent.jsonl --config two.toml", 2, "absent.jsonl cannot be read: No such file"),
        ("submit wrong.jsonl --config two.toml", 2, "Line 2 is not a document"),
        ("up engine", 2, "engine"),
        ("config check --config absent.toml", 2, "there is no such file"),
        ("topics list", 1, "crossfade up"),
        ("dlt replay", 2, "Which dead letters?"),
        ("nothing", 2, "No such command"),
        ("verify --page 0", 2, "--page"),
        ("inspect first", 2, "Missing argument 'ID'"),
        ("inspect third 1 --config two.toml", 2, "There is no collection 'third'"),
        ("migrate status", 1, "No collection is configured"),
        ("migrate status third --config two.toml", 2, "There is no collection 'third'"),
        ("migrate pause --config two.toml", 2, "Which collection?"),
        ("migrate resume first --config two.toml", 1, "No database is known"),
    ],
)
def test_a_mistake_ends_with_its_exit_code_and_a_sentence_on_stderr(
    tmp_path: Path, arguments: str, code: int, expected: str
) -> None:
    (tmp_path / "two.toml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "one.toml").write_text(CONFIG.partition("[collections.second]")[0], encoding="utf-8")
    (tmp_path / "wrong.jsonl").write_text('{"collection": "first", "id": "1", "delete": true}\n{}\n', encoding="utf-8")
    result = CliRunner().invoke(APP, shlex.split(arguments))
    assert result.exit_code == code
    assert expected in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_an_error_outside_of_a_command_is_reported_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise CommandError("it is broken", "mend it", 2)

    monkeypatch.setattr("operations.app.command_tree", lambda _: broken)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == "crossfade: it is broken\nmend it\n"


def test_ctrl_c_ends_with_130_and_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text(CONFIG, encoding="utf-8")
    arguments = (*CROSSFADE, "submit", "-", "--config", "two.toml")
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        waiting_for_a_line(process.pid)
        process.send_signal(signal.SIGINT)
        expected = process.stderr.read()
    assert process.returncode == 130
    assert b"Traceback" not in expected


def waiting_for_a_line(pid: int) -> None:
    """Wait until the process is waiting in a read of its standard input."""
    while not Path(f"/proc/{pid}/syscall").read_text(encoding="ascii").startswith("0 0x0 "):
        pass


def test_roles_are_taken_once_and_in_order() -> None:
    assert roles_of("query, intake,query") == ["query", "intake"]


def test_a_line_becomes_a_record_or_a_message_with_its_number() -> None:
    record = submission_record(1, b'{"collection": "c", "id": "7", "text": "t"}')
    assert (record.key, json.loads(record.value or b"")["text"]) == (b"c/7", "t")
    gone = submission_record(2, b'{"collection": "c", "id": "7", "delete": true}')
    assert (gone.key, gone.value) == (b"c/7", None)
    assert [name for name, _ in gone.headers] == ["ce_id"]
    for line, expected in ((b"{", "JSON"), (b"[]", "object"), (b'{"collection": "c", "id": "1", "txt": ""}', "t")):
        with pytest.raises(CommandError, match=f"Line 3 is not a document.*{expected}") as caught:
            submission_record(3, line)
        assert caught.value.exit_code == 2


def test_a_file_is_published_in_batches_without_its_empty_lines(tmp_path: Path) -> None:
    file = tmp_path / "documents.jsonl"
    file.write_text("\n".join(f'{{"collection": "c", "id": "{n}", "text": "t"}}\n' for n in range(1001)), "utf-8")
    assert [len(batch) for batch in batches(file)] == [500, 500, 1]


async def test_work_that_is_told_to_stop_is_cancelled_and_has_ended() -> None:
    stop, ended = asyncio.Event(), asyncio.Event()

    async def work() -> int:
        try:
            stop.set()
            await asyncio.Event().wait()
            return 1
        finally:
            ended.set()

    assert await _unless(stop, work()) is None
    assert ended.is_set()


async def test_work_that_ends_first_gives_its_result_or_its_error() -> None:
    async def result() -> int:
        return 7

    async def failure() -> int:
        raise CommandError("no")

    assert await _unless(asyncio.Event(), result()) == 7
    with pytest.raises(CommandError):
        await _unless(asyncio.Event(), failure())


_INTERRUPTED_BY_SIGNALS = """
import signal
from operations import cli
from operations.context import print_json
cli.print_whole()
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
print_json(["x" * 1000] * 1000)
print("y" * 1000000)
signal.setitimer(signal.ITIMER_REAL, 0)
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_is_printed_into_a_slow_pipe_is_whole_whatever_signals_come(unbuffered: str) -> None:
    environ = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen([sys.executable, "-c", _INTERRUPTED_BY_SIGNALS], stdout=subprocess.PIPE, env=environ) as one:
        assert one.stdout is not None
        printed = bytearray()
        while part := os.read(one.stdout.fileno(), 65_536):
            printed += part
            time.sleep(0.05)
    assert one.returncode == 0
    text, _, last = printed.decode().rpartition("]\n")
    assert json.loads(text + "]") == ["x" * 1000] * 1000
    assert last == "y" * 1_000_000 + "\n"


def test_status_of_a_quarantined_collection_is_a_json_document_and_ends_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def quarantined(_: Settings) -> list[Progress]:
        return [Progress("first", "dual_write", quarantine=Quarantine("first", Reason.CAPTURE_LOST))]

    async def running(_: LocalStack) -> list[PartStatus]:
        return [PartStatus("kafka", "running", 1, "127.0.0.1:9092", "", 1.0)]

    monkeypatch.setattr("operations.commands.stack._stops", quarantined)
    monkeypatch.setattr(LocalStack, "status", running)
    (tmp_path / "two.toml").write_text(CONFIG, encoding="utf-8")
    with pytest.raises(typer.Exit) as ended:
        stack.status(tmp_path / "two.toml", tmp_path, json=True)
    assert ended.value.exit_code == 3
    (collection,) = json.loads(capfd.readouterr().out)["collections"]
    assert (collection["state"], collection["stopped"]["reason"]) == ("stopped", "capture_lost")
