"""How every command handles its errors and its output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from connectors.errors import Misconfigured, NotReady, Refused, StoreUnavailable
from operations.commands import schemas
from operations.context import Context, errors_reported, load, print_table, renamed, run
from operations.errors import CommandError
from schemas.export import schema_files
from schemas.settings import Settings


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CROSSFADE_CONFIG", "CROSSFADE_DEBUG", "CROSSFADE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("error", "code", "part"),
    [
        (CommandError("wrong", "do this", 2), 2, "wrong\ndo this"),
        (CommandError("differs", "", 3), 3, "differs"),
        (StoreUnavailable("kafka: silent"), 1, "crossfade up"),
        (Misconfigured("no topic"), 1, "config check"),
        (Refused("too large"), 1, "too large"),
        (ValueError("a mistake of ours"), 1, "CROSSFADE_DEBUG=1"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_becomes_a_message_and_an_exit_code(
    error: BaseException, code: int, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        run(fail())
    assert caught.value.exit_code == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert part in captured.err
    assert "Traceback" not in captured.err


def test_a_traceback_is_shown_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CROSSFADE_DEBUG", "1")
    with pytest.raises(typer.Exit), errors_reported():
        raise ValueError("a mistake of ours")
    assert "Traceback" in capsys.readouterr().err


def test_a_command_without_brokers_or_database_says_how_to_get_them(tmp_path: Path) -> None:
    collection = {"table": "articles", "key": ["id"], "text": ["body"]}
    context = Context(Settings.model_validate({"collections": {"docs": collection}}), tmp_path, None)
    with pytest.raises(NotReady) as no_brokers:
        _ = context.bootstrap
    with pytest.raises(NotReady) as no_database:
        context.dsn("docs")
    assert "crossfade up" in no_brokers.value.hint
    assert "crossfade up" in no_database.value.hint


def test_the_home_may_be_given_or_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path / "other"))
    assert load(None, None).home == tmp_path / "other"
    assert load(None, tmp_path / "given").home == tmp_path / "given"


def test_a_table_shows_whole_cells_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "value"), [("[bold]x[/bold]", "y" * 150)])
    out = capsys.readouterr().out
    assert "[bold]x[/bold]" in out
    assert "y" * 150 in out


def test_the_schemas_are_written_with_the_asyncapi_document(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder"
    result = CliRunner().invoke(schemas.app, ["export", str(target), "--json"])
    assert result.exit_code == 0
    written = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in target.iterdir()}
    assert set(written) == {*schema_files(), "asyncapi.json"}
    assert written["asyncapi.json"]["asyncapi"] == "3.0.0"
    assert sorted(json.loads(result.stdout)["files"]) == sorted(str(target / name) for name in written)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = CliRunner().invoke(schemas.app, ["export", str(tmp_path / "file" / "below")])
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_an_option_of_before_counts_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert renamed("--settle", None, "--recheck-delay", 2.0) == 2.0
    assert capsys.readouterr().err == ""
    assert renamed("--settle", 0.0, "--recheck-delay", 2.0) == 0.0
    assert "--settle is called --recheck-delay now" in capsys.readouterr().err
