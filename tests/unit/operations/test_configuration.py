"""Where settings come from. Every mistake is reported with its place, what is wrong, and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from operations.configuration import read_settings, resolve
from operations.errors import CommandError
from stack.layout import StackAddresses

COLLECTION = '[collections.docs]\ntable = "docs"\nkey = ["id"]\ntext = ["body"]\n'
ADDRESSES = StackAddresses("127.0.0.1:1", "http://127.0.0.1:2", "postgresql://p", "mysql://m")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "given.toml"
    path.write_text(text, encoding="utf-8")
    return path


def mistake(path: Path | None, home: Path, environ: dict[str, str] | None = None) -> CommandError:
    with pytest.raises(CommandError) as caught:
        read_settings(path, home, environ or {})
    assert caught.value.exit_code == 2
    return caught.value


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert read_settings(None, tmp_path, {}).kafka.partitions == 4


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "[kafka]\npartitions = 2\nreplication = 3\n")
    settings = read_settings(path, tmp_path, {"CROSSFADE_KAFKA__PARTITIONS": "8"})
    assert (settings.kafka.partitions, settings.kafka.replication) == (8, 3)


def test_one_value_of_a_collection_can_come_from_the_environment(tmp_path: Path) -> None:
    path = written(tmp_path, COLLECTION)
    settings = read_settings(path, tmp_path, {"CROSSFADE_COLLECTIONS__DOCS__DSN": "postgresql://secret"})
    assert settings.collections["docs"].dsn == "postgresql://secret"
    assert settings.collections["docs"].key == ("id",)


def test_the_short_name_of_qdrants_address_is_known_and_the_long_one_wins(tmp_path: Path) -> None:
    short = {"CROSSFADE_QDRANT_URL": "http://short"}
    assert read_settings(None, tmp_path, short).qdrant.url == "http://short"
    both = short | {"CROSSFADE_QDRANT__URL": "http://long"}
    assert read_settings(None, tmp_path, both).qdrant.url == "http://long"


def test_the_file_is_looked_for_in_four_places(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for number, folder in enumerate((home, tmp_path)):
        (folder / "crossfade.toml").write_text(f"[kafka]\npartitions = {number + 1}\n", encoding="utf-8")
        assert read_settings(None, home, {}).kafka.partitions == number + 1
    named = tmp_path / "named.toml"
    named.write_text("[kafka]\npartitions = 3\n", encoding="utf-8")
    assert read_settings(None, home, {"CROSSFADE_CONFIG": str(named)}).kafka.partitions == 3
    given = written(tmp_path, "[kafka]\npartitions = 4\n")
    assert read_settings(given, home, {"CROSSFADE_CONFIG": str(named)}).kafka.partitions == 4


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    assert "absent.toml" in mistake(tmp_path / "absent.toml", tmp_path).message
    reported = mistake(None, tmp_path, {"CROSSFADE_CONFIG": "absent.toml"})
    assert "absent.toml" in reported.message
    assert "CROSSFADE_CONFIG" in reported.hint


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[kafka]\npartitons = 3\n", ["kafka.partitons", "did you mean 'partitions'?", "replication"]),
        ("[kafak]\npartitions = 3\n", ["kafak", "did you mean 'kafka'?", "collections"]),
        ("[kafka]\npartitions = 0\n", ["kafka.partitions", "greater than or equal to 1", "it is 0"]),
        ("[embedding]\nengine = 'gpu'\n", ["embedding.engine", "'onnx-int8', 'onnx-fp32' or 'torch'", "'gpu'"]),
        ("[collections.docs]\nkey = ['id']\ntext = ['body']\n", ["collections.docs.table", "required"]),
        (COLLECTION + "metadata = ['body']\n", ["collections.docs", "column used twice: body"]),
        (COLLECTION + "embeding = 'e'\n", ["collections.docs.embeding", "did you mean 'embedding'?"]),
        (COLLECTION + "[collections.docs.embedding]\ncolum = 'e'\nformat = 'json'\n", ["did you mean 'column'?"]),
        (COLLECTION.replace("docs]", "Docs]"), ["collections.Docs", "pattern"]),
        ("[kafka]\npartitions 3\n", ["is not TOML", "line 2"]),
    ],
)
def test_a_mistake_in_the_file_names_file_key_and_what_is_allowed(tmp_path: Path, text: str, parts: list[str]) -> None:
    message = mistake(written(tmp_path, text), tmp_path).message
    assert all(part in message for part in [*parts, "given.toml"]), message


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    message = mistake(
        written(tmp_path, "[kafka]\npartitions = 0\nreplication = 0\n[qdrant]\nurl = 3\n"), tmp_path
    ).message
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("CROSSFADE_KAFKA__PARTITIONS", "many", "it is 'many'"),
        ("CROSSFADE_KAFKA__PARTITONS", "3", "did you mean 'partitions'?"),
        ("CROSSFADE_KAFAK__PARTITIONS", "3", "did you mean 'kafka'?"),
        ("CROSSFADE_COLLECTIONS__DOCS__KEY", "id", "is not JSON"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(tmp_path: Path, name: str, value: str, part: str) -> None:
    message = mistake(None, tmp_path, {name: value}).message
    assert name in message
    assert part in message


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    reported = mistake(written(tmp_path, COLLECTION + "dsn = 1234567\n[qdrant]\napi_key = 7654321\n"), tmp_path).message
    assert "collections.docs.dsn" in reported
    assert "qdrant.api_key" in reported
    assert "1234567" not in reported
    assert "7654321" not in reported


def test_other_variables_of_the_program_are_left_alone(tmp_path: Path) -> None:
    read_settings(None, tmp_path, {"CROSSFADE_HOME": "x", "CROSSFADE_DEBUG": "1", "CROSSFADE_TEST_HOME": "y"})


def test_the_local_stack_fills_in_only_what_is_not_set(tmp_path: Path) -> None:
    second = COLLECTION.replace("docs", "posts") + 'connector = "mariadb"\n'
    path = written(tmp_path, '[kafka]\nconnect = "http://mine"\n' + COLLECTION + 'dsn = "postgresql://mine"\n' + second)
    settings = resolve(read_settings(path, tmp_path, {}), ADDRESSES)
    assert (settings.kafka.bootstrap, settings.kafka.connect) == ("127.0.0.1:1", "http://mine")
    assert settings.collections["docs"].dsn == "postgresql://mine"
    assert settings.collections["posts"].dsn == "mysql://m"


def test_without_a_local_stack_settings_stay_as_they_are(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, COLLECTION), tmp_path, {})
    assert resolve(settings, None) == settings


def test_a_key_of_before_is_read_under_its_name_of_today_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "crossfade.toml"
    collection = '[collections.docs]\ntable = "articles"\nkey = ["id"]\ntext = ["body"]\n'
    file.write_text(f'{collection}fill = "backfill"\n')
    settings = read_settings(file, tmp_path, {})
    assert settings.collections["docs"].initial_load == "backfill"
    assert "collections.docs.fill is called initial_load now" in capsys.readouterr().err
    file.write_text(f'{collection}fill = "backfill"\ninitial_load = "snapshot"\n')
    assert "fill" in str(mistake(file, tmp_path))
