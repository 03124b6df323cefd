"""`crossfade config check` against real parts: it tells each mistake with what mends it, and mends what SQL can."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from typer.testing import CliRunner

from operations.checking import _dimension
from operations.commands import config
from operations.stack.layout import StackAddresses
from schemas.settings import Collection, Qdrant


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CROSSFADE_CONFIG", raising=False)
    monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path / "home"))


@pytest.fixture
def table(stack: StackAddresses) -> Iterator[str]:
    name = f"check_{uuid4().hex[:12]}"

    async def execute(statement: str) -> None:
        connection = await asyncpg.connect(stack.postgres)
        await connection.execute(statement)
        await connection.close()

    asyncio.run(execute(f"CREATE TABLE {name} (id bigint PRIMARY KEY, body text NOT NULL)"))
    yield name
    asyncio.run(execute(f"DROP TABLE {name}"))


def written(folder: Path, stack: StackAddresses, table: str, *, text: str = "body", kafka: str = "") -> Path:
    path = folder / "crossfade.toml"
    path.write_text(
        f'[kafka]\nbootstrap = "{stack.kafka}"\nconnect = "{stack.connect}"\n{kafka}'
        f'[collections.docs]\ndsn = "{stack.postgres}"\ntable = "{table}"\nkey = ["id"]\ntext = ["{text}"]\n',
        encoding="utf-8",
    )
    return path


def check(path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(config.app, ["check", "--config", str(path), "--json", *arguments])
    return result.exit_code, json.loads(result.stdout)


def messages(document: dict[str, Any], part: str, level: str = "error") -> list[str]:
    return [f["message"] for f in document["findings"] if f["part"] == part and f["level"] == level]


@pytest.mark.stack
def test_a_table_is_mended_by_the_statements_that_the_check_names(
    tmp_path: Path, stack: StackAddresses, table: str
) -> None:
    path = written(tmp_path, stack, table)
    code, document = check(path)
    assert code == 3
    assert any("crossfade_version" in message for message in messages(document, "docs"))
    mends = [finding["mend"] for finding in document["findings"] if finding["part"] == "docs"]
    code, document = check(path, "--apply")
    assert messages(document, "docs") == []
    assert set(document["executed"]) == {mend for mend in mends if mend and not mend.startswith("--")}


@pytest.mark.stack
def test_everything_is_looked_at_even_when_one_part_does_not_answer(
    tmp_path: Path, stack: StackAddresses, table: str
) -> None:
    code, document = check(written(tmp_path, stack, table, text="boby"))
    assert code == 3
    assert document["checked"] == ["configuration", "kafka", "topics", "connect", "qdrant", "docs"]
    assert messages(document, "connect") == []
    assert "the local engine does not run" in messages(document, "qdrant")
    assert any("did you mean body" in message for message in messages(document, "docs"))


@pytest.mark.stack
def test_limits_of_the_brokers_are_compared_with_the_settings(
    tmp_path: Path, stack: StackAddresses, table: str
) -> None:
    kafka = f"replication = 3\nmax_record_bytes = {512 * 2**20}\n"
    _, document = check(written(tmp_path, stack, table, kafka=kafka))
    assert any("replication is 3, there are 1 brokers" in message for message in messages(document, "kafka"))
    assert any("socket.request.max.bytes" in message for message in messages(document, "kafka"))
    assert any("message.max.bytes" in message for message in messages(document, "kafka", "warning"))


def test_parts_that_are_not_there_are_findings_and_not_failures(tmp_path: Path) -> None:
    nowhere = StackAddresses("127.0.0.1:1", "http://127.0.0.1:1", "postgresql://u@127.0.0.1:1/d", None)
    code, document = check(written(tmp_path, nowhere, "articles"))
    assert code == 3
    for part in ("kafka", "topics", "connect", "qdrant", "docs"):
        assert messages(document, part), part


def test_mistakes_inside_the_file_are_found_without_any_server(tmp_path: Path) -> None:
    path = tmp_path / "crossfade.toml"
    path.write_text(
        "[kafka]\nmax_text_bytes = 99999999\n"
        + "".join(
            f'[collections.{name}]\ntable = "{table}"\nkey = ["id"]\ntext = ["body"]\n'
            for name, table in (("first", "articles"), ("second", "public.articles"))
        )
        + "chunk_tokens = 10\nchunk_overlap = 10\n",
        encoding="utf-8",
    )
    _, document = check(path)
    found = messages(document, "configuration")
    assert any("max_text_bytes" in message for message in found)
    assert any("more than one collection: first, second" in message for message in found)
    assert any("chunk_overlap must be below" in message for message in found)


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ({"dense": {"size": 384}}, None),
        ({"dense": {"size": 768}}, "vectors of 768 numbers, all-MiniLM-L6-v2 makes 384"),
        ({"size": 384}, "no vector named dense"),
    ],
)
def test_a_collection_of_another_dimension_is_told(vectors: dict[str, Any], expected: str | None) -> None:
    described = {"result": {"config": {"params": {"vectors": vectors}}}}
    collection = Collection(table="articles", key=("id",), text=("body",))
    found = _dimension(Qdrant(url="http://qdrant:6333"), "docs", collection, described)
    assert [expected in finding.message for finding in found if expected] == ([True] if expected else [])
    assert bool(found) == bool(expected)
