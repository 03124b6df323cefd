"""The compose file agrees with the code: versions, addresses, settings, limits. It opens nothing to the network."""

from __future__ import annotations

import asyncio
import re
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import uuid4

import aiomysql
import asyncpg
import pytest
import yaml

from connectors.sql.databases import check_legacy
from operations.configuration import read_settings
from schemas.settings import Settings
from stack.java import DEBEZIUM_VERSION, KAFKA_VERSION
from stack.layout import StackAddresses
from tests.test_rooms import ORDER, ROOT
from topics.provisioning import largest_record

COMPOSE = cast(dict[str, Any], yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
SERVICES = cast(dict[str, dict[str, Any]], COMPOSE["services"])
PASSWORD = "chosen"
BUILT = {"collector": ROOT / "deploy" / "collector.Dockerfile", "worker": ROOT / "deploy" / "Dockerfile"}
every_service = pytest.mark.parametrize("name", SERVICES)


def environment(name: str) -> dict[str, str]:
    filled: dict[str, str] = {}
    for key, value in SERVICES[name].get("environment", {}).items():
        filled[key] = re.sub(r"\$\{CROSSFADE_DATABASE_PASSWORD(:\?[^}]*)?\}", PASSWORD, str(value))
    return filled


def settings() -> Settings:
    return read_settings(ROOT / "deploy" / "crossfade.toml", ROOT, environment("worker"))


def listening(name: str) -> set[int]:
    """Return the ports on which a service is known to listen inside the compose network."""
    published = {int(port.rpartition(":")[2]) for port in SERVICES[name].get("ports", [])}
    return published | ({9092} if name == "kafka" else set())


@every_service
def test_a_service_has_a_health_check(name: str) -> None:
    health = SERVICES[name]["healthcheck"]
    assert health["test"][0] == "CMD"
    assert len(health["test"]) > 1
    assert {"interval", "timeout", "retries", "start_period"} <= set(health)


@every_service
def test_a_port_is_published_on_loopback_only(name: str) -> None:
    assert SERVICES[name].get("network_mode") is None
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port


@every_service
def test_a_service_waits_for_healthy_ones_that_exist(name: str) -> None:
    for other, waits in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        assert waits == {"condition": "service_healthy"}


@every_service
def test_an_image_is_pinned_or_built_here(name: str) -> None:
    image = SERVICES[name].get("image")
    if image is None:
        build = SERVICES[name]["build"]
        assert (ROOT / build["context"] / build["dockerfile"]).resolve() == BUILT[name].resolve()
        bases = re.findall(r"^FROM (\S+)", BUILT[name].read_text(encoding="utf-8"), re.MULTILINE)
    else:
        bases = [image]
    for base in bases:
        tag = base.rpartition(":")[2]
        assert ":" in base, base
        assert re.search(r"\d", tag), base


@every_service
def test_what_is_mounted_is_there(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.partition(":")[0]
        if source.startswith("."):
            assert (ROOT / source).is_file()
            assert volume.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]


@every_service
def test_no_secret_is_written_down(name: str) -> None:
    for key, value in SERVICES[name].get("environment", {}).items():
        if "PASSWORD" in key or "DSN" in key:
            assert "${CROSSFADE_DATABASE_PASSWORD" in str(value), key


def test_every_variable_of_the_worker_is_a_setting_and_valid() -> None:
    variables = environment("worker")
    assert all(name.startswith(("CROSSFADE_", "OTEL_")) for name in variables)
    found = settings()
    for name, value in variables.items():
        if not name.startswith("CROSSFADE_"):
            continue
        node: Any = found
        for part in name.removeprefix("CROSSFADE_").lower().split("__"):
            node = node[part] if isinstance(node, dict) else getattr(node, part)
        assert str(node) == value


def test_every_address_of_the_worker_is_a_port_of_a_service_that_it_waits_for() -> None:
    found = settings()
    addresses = [
        f"kafka://{found.kafka.bootstrap}",
        found.kafka.connect,
        found.qdrant.url,
        *(collection.dsn for collection in found.collections.values()),
        environment("worker")["OTEL_EXPORTER_OTLP_ENDPOINT"],
    ]
    for address in addresses:
        parts = urlsplit(address or "")
        assert parts.hostname in SERVICES["worker"]["depends_on"], address
        assert parts.port in listening(str(parts.hostname)), address
    assert found.qdrant.grpc_port in listening("qdrant")


def test_every_collection_has_its_database() -> None:
    schemes = {"postgres": "postgresql", "mariadb": "mysql"}
    collections = settings().collections
    assert {collection.connector for collection in collections.values()} == {"postgres", "mariadb"}
    for collection in collections.values():
        assert urlsplit(collection.dsn or "").scheme == schemes[collection.connector]


def test_the_versions_are_those_of_the_local_stack() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert SERVICES["connect"]["image"].endswith(f"debezium/connect:{DEBEZIUM_VERSION}")


def test_brokers_and_connect_take_the_largest_record() -> None:
    largest = largest_record(settings().kafka)
    assert int(environment("kafka")["KAFKA_MESSAGE_MAX_BYTES"]) >= largest
    assert int(environment("connect")["CONNECT_PRODUCER_MAX_REQUEST_SIZE"]) >= settings().kafka.max_record_bytes
    assert environment("kafka")["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_the_databases_write_what_capture_reads() -> None:
    assert "wal_level=logical" in SERVICES["postgres"]["command"]
    flags = SERVICES["mariadb"]["command"]
    stack = (ROOT / "stack" / "mariadb.py").read_text(encoding="utf-8")
    for flag in (
        "--binlog-format=ROW",
        "--binlog-row-image=FULL",
        "--binlog-row-metadata=FULL",
        "--gtid-strict-mode=1",
    ):
        assert flag in flags
        assert flag in stack


def test_a_worker_has_the_time_to_finish_what_is_in_flight() -> None:
    worker = SERVICES["worker"]
    assert int(worker["stop_grace_period"].removesuffix("s")) > settings().worker.drain_s
    assert f":{settings().worker.http_port}/livez" in worker["healthcheck"]["test"][-1]


def test_the_image_has_every_room_and_the_ignore_file_lets_them_in() -> None:
    image = BUILT["worker"].read_text(encoding="utf-8")
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for room in ORDER:
        assert f"COPY {room} {room}" in image
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", image, re.MULTILINE):
        for source in copied.split():
            assert f"!{source}" in allowed, source


def test_the_collectors_pipelines_name_only_what_it_has() -> None:
    collector = yaml.safe_load((ROOT / "deploy" / "collector.yaml").read_text(encoding="utf-8"))
    for pipeline in collector["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(collector[kind])
    assert set(collector["service"]["extensions"]) <= set(collector["extensions"])
    assert collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(":4318")
    assert urlsplit("//" + collector["exporters"]["otlp"]["endpoint"]).hostname in SERVICES["collector"]["depends_on"]


@pytest.mark.stack
async def test_the_example_tables_pass_the_check_of_the_database(stack: StackAddresses) -> None:
    assert stack.mariadb is not None
    collections = settings().collections
    name = f"compose_{uuid4().hex[:10]}"
    articles = await asyncpg.connect(stack.postgres)
    await articles.execute(f'CREATE DATABASE "{name}"')
    dsn = stack.postgres.rpartition("/")[0] + f"/{name}"
    try:
        inside = await asyncpg.connect(dsn)
        await inside.execute((ROOT / "deploy" / "postgres" / "articles.sql").read_text(encoding="utf-8"))
        await inside.close()
        assert await check_legacy("articles", collections["articles"], dsn) == []
    finally:
        await articles.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await articles.close()


@pytest.mark.stack
async def test_the_example_table_of_mariadb_passes_the_check(stack: StackAddresses) -> None:
    assert stack.mariadb is not None
    parts = urlsplit(stack.mariadb)
    name = f"compose_{uuid4().hex[:10]}"
    connection = await aiomysql.connect(
        host=parts.hostname, port=parts.port, user=parts.username, password=parts.password
    )
    try:
        async with connection.cursor() as cursor:
            await cursor.execute(f"CREATE DATABASE {name}")
            await cursor.execute(f"USE {name}")
            text = (ROOT / "deploy" / "mariadb" / "posts.sql").read_text(encoding="utf-8")
            for statement in text.split(";"):
                if statement.strip():
                    await cursor.execute(statement)
            collection = settings().collections["posts"].model_copy(update={"table": f"{name}.posts"})
            findings = await check_legacy("posts", collection, stack.mariadb)
            assert [one for one in findings if "XA" not in one.message] == []
            # This comes last: the check counts what the server has prepared since its start, and must pass before this.
            for statement in ("XA START 'x'", "DELETE FROM posts", "XA END 'x'", "XA PREPARE 'x'", "XA ROLLBACK 'x'"):
                await cursor.execute(statement)
            (prepared,) = await check_legacy("posts", collection, stack.mariadb)
            assert "verify --repair" in prepared.message
    finally:
        async with connection.cursor() as cursor:
            await cursor.execute(f"DROP DATABASE {name}")
        connection.close()
        await asyncio.sleep(0)
