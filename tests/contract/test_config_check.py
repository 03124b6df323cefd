"""`crossfade config check` against real services: it reports each mistake with a remedy, and fixes what SQL can fix."""

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

from connectors.embedding.facts import ModelFacts
from connectors.qdrant.engine.client import HostedVectorStore
from connectors.qdrant.engine.files import socket_path
from migration.preflight.checks import check_all
from migration.preflight.models import check_chunking, check_record
from operations.commands import config
from operations.context import Context
from schemas.settings import Collection, Kafka, Settings
from stack.layout import StackAddresses
from tests.contract.vector_stores import end, start_host


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
    remedies = [finding["mend"] for finding in document["findings"] if finding["part"] == "docs"]
    code, document = check(path, "--apply")
    assert messages(document, "docs") == []
    assert set(document["executed"]) == {remedy for remedy in remedies if remedy and not remedy.startswith("--")}


@pytest.mark.stack
def test_everything_is_looked_at_even_when_one_part_does_not_answer(
    tmp_path: Path, stack: StackAddresses, table: str
) -> None:
    code, document = check(written(tmp_path, stack, table, text="boby"))
    assert code == 3
    assert document["checked"] == [
        "configuration",
        "kafka",
        "topics",
        "phases",
        "connect",
        "qdrant",
        "databases",
        "docs",
    ]
    assert messages(document, "connect") == []
    assert any("engine of the local stack does not run" in message for message in messages(document, "qdrant"))
    assert any("did you mean body" in message for message in messages(document, "docs"))


@pytest.mark.stack
def test_a_table_in_two_collections_is_found_whatever_their_addresses(
    tmp_path: Path, stack: StackAddresses, table: str
) -> None:
    path = written(tmp_path, stack, table)
    other = stack.postgres.replace("127.0.0.1", "localhost")
    assert other != stack.postgres
    again = f'[collections.again]\ndsn = "{other}"\ntable = "public.{table}"\nkey = ["id"]\ntext = ["body"]\n'
    path.write_text(path.read_text() + again)
    _, document = check(path)
    assert messages(document, "configuration") == []
    assert messages(document, "databases") == [
        "by different addresses, this table is in more than one collection: docs, again"
    ]


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


@pytest.mark.stack
@pytest.mark.parametrize(
    ("column", "form", "value", "wording"),
    [
        ("vector(768)", "pgvector", None, "vectors of 768 numbers, all-MiniLM-L6-v2 makes 384"),
        ("vector", "pgvector", "[1,2,3]", "vectors of 3 numbers"),
        ("jsonb", "json", "[0.5, 0.25]", "vectors of 2 numbers"),
        ("bytea", "float32", "\\x0000803f", "vectors of 1 numbers"),
        ("vector(384)", "pgvector", None, None),
        ("jsonb", "json", None, None),
        ("jsonb", "float32", None, "format float32 needs bytea"),
    ],
)
def test_embeddings_of_another_model_are_reported(
    tmp_path: Path, stack: StackAddresses, table: str, column: str, form: str, value: str | None, wording: str | None
) -> None:
    async def prepare() -> None:
        connection = await asyncpg.connect(stack.postgres)
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        await connection.execute(f"ALTER TABLE {table} ADD COLUMN given {column}, ADD COLUMN crossfade_version bigint")
        await connection.execute(f"ALTER TABLE {table} REPLICA IDENTITY FULL")
        if value is not None:
            await connection.execute(f"INSERT INTO {table} (id, body, given) VALUES (1, 'x', '{value}')")
        await connection.close()

    asyncio.run(prepare())
    path = written(tmp_path, stack, table)
    path.write_text(f'{path.read_text("utf-8")}embedding = {{column = "given", format = "{form}"}}\n', "utf-8")
    found = messages(check(path)[1], "docs")
    assert [wording in message for message in found if wording] == ([True] if wording else [])
    assert bool(found) == bool(wording)


def test_every_error_names_its_remedy(tmp_path: Path) -> None:
    nowhere = StackAddresses("127.0.0.1:1", "http://127.0.0.1:1", "postgresql://u@127.0.0.1:1/d", None)
    path = written(tmp_path, nowhere, "articles")
    path.write_text(f'{path.read_text("utf-8")}model = "./absent"\nchunk_tokens = 3\n', "utf-8")
    _, document = check(path)
    errors = [finding for finding in document["findings"] if finding["level"] == "error"]
    assert {finding["part"] for finding in errors} == {
        "configuration",
        "kafka",
        "topics",
        "phases",
        "connect",
        "qdrant",
        "docs",
    }
    assert [finding for finding in errors if not finding["mend"]] == []
    assert any("there is no model folder absent" in message for message in messages(document, "configuration"))
    assert any("chunk_tokens is 3, the least is 8" in message for message in messages(document, "configuration"))


async def test_a_collection_of_another_dimension_is_reported(tmp_path: Path) -> None:
    home = tmp_path / "home"
    host = await start_host(home)
    store = HostedVectorStore(socket_path(home))
    await store.prepare("docs", 4)
    settings = Settings(collections={"docs": Collection(table="t", key=("id",), text=("body",))})
    checked = {part.part: part.findings for part in await check_all(Context(settings, home, None))}
    await store.close()
    await end(host)
    (finding,) = checked["qdrant"]
    assert "vectors of 4 numbers, all-MiniLM-L6-v2 makes 384" in finding.message


def collection_with(tokens: int, overlap: int = 0) -> Collection:
    return Collection(table="t", key=("id",), text=("body",), chunk_tokens=tokens, chunk_overlap=overlap)


@pytest.mark.parametrize(
    ("tokens", "overlap", "expected"),
    [
        (0, 0, []), (254, 0, []), (8, 7, []), (0, 253, []),
        (7, 0, ["the least is 8"]), (255, 0, ["reads 254"]), (0, 254, ["254 of 254"]), (10, 10, ["10 of 10"]),
        (1000, 300, ["reads 254", "300 of 254"]),
    ],
)  # fmt: skip
def test_a_chunking_that_the_model_cannot_follow_is_reported(tokens: int, overlap: int, expected: list[str]) -> None:
    found = check_chunking("docs", collection_with(tokens, overlap), ModelFacts(384, 254))
    assert [part in finding.message for part, finding in zip(expected, found, strict=True)] == [True] * len(expected)


def test_the_longest_text_must_fit_into_a_record_with_its_vectors() -> None:
    facts, kafka = ModelFacts(384, 254), Kafka()
    assert check_record("docs", collection_with(0), facts, kafka) == []
    (finding,) = check_record("docs", collection_with(32), facts, kafka)
    needed = int(str(finding.remedy).split("max_record_bytes = ")[1].split(",")[0])
    assert needed > kafka.max_record_bytes
    assert check_record("docs", collection_with(32), facts, Kafka(max_record_bytes=needed)) == []
    fitting = int(str(finding.remedy).split("max_text_bytes = ")[1])
    assert check_record("docs", collection_with(32), facts, Kafka(max_text_bytes=fitting)) == []
    assert check_record("docs", collection_with(32), ModelFacts(None, None), kafka) == []
