"""The life cycle of the local stack: up, up again, killed, down. Each test leaves the stack of this module running."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomysql
import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from pymysql.err import OperationalError

from connectors.debezium.configuration import postgres_connector
from connectors.errors import ConnectUnreachable, TaskFailed
from connectors.kafka.connect import ConnectClient
from stack.jvm import RECORD_BYTES
from stack.layout import LOOPBACK, PART_NAMES, STOP_ORDER, StackAddresses, read_addresses, read_state
from stack.mariadb import find_mariadb
from stack.stack import LocalStack
from tests.stack.capture_topics import capture_topics
from tests.stack.tools import mariadb_arguments

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def own_home() -> Iterator[Path]:
    """A home that only this module uses, because its stack is killed, and no other test must see that."""
    home = Path(tempfile.mkdtemp(prefix="crossfade-life-"))
    try:
        yield home
    finally:
        asyncio.run(LocalStack(home).down())
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def local(own_home: Path) -> LocalStack:
    local = LocalStack(own_home, install_mariadb=True)
    await local.up(lambda _: None)
    if find_mariadb() is None and os.environ.get("CI") == "true":
        pytest.fail("MariaDB cannot be had here")
    return local


def addresses_of(local: LocalStack) -> StackAddresses:
    addresses = read_addresses(local.home)
    assert addresses is not None
    return addresses


async def pids(local: LocalStack) -> dict[str, int | None]:
    return {part.name: part.pid for part in await local.status()}


@asynccontextmanager
async def postgres(local: LocalStack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(addresses_of(local).postgres)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def mariadb(local: LocalStack) -> AsyncIterator[aiomysql.Cursor]:
    dsn = addresses_of(local).mariadb
    assert dsn is not None
    connection = await aiomysql.connect(**mariadb_arguments(dsn), autocommit=True)
    try:
        async with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


async def create_topics(kafka: str, *names: str, max_bytes: int = RECORD_BYTES) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics(
            [NewTopic(name, 1, 1, topic_configs={"max.message.bytes": str(max_bytes)}) for name in names]
        )
    finally:
        await admin.close()


async def read(kafka: str, topic: str, count: int) -> list[bytes | None]:
    """Read the first `count` values of a topic. Fail if they do not come."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=RECORD_BYTES,
        fetch_max_bytes=2 * RECORD_BYTES,
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        return [(await asyncio.wait_for(consumer.getone(), 40)).value for _ in range(count)]
    finally:
        await consumer.stop()


async def read_until(kafka: str, topic: str, part: bytes) -> None:
    """Read a topic until a value contains `part`. After a crash, records may come twice; none may be missing."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        while part not in ((await asyncio.wait_for(consumer.getone(), 40)).value or b""):
            pass
    finally:
        await consumer.stop()


async def produce(kafka: str, topic: str, *values: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", max_request_size=2 * RECORD_BYTES)
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def test_up_twice_is_up_once(local: LocalStack) -> None:
    before, addresses = await pids(local), addresses_of(local)
    assert all(before.values())
    assert await LocalStack(local.home).up(lambda _: None) == addresses
    assert await pids(local) == before


async def test_two_commands_at_once_start_each_part_once(local: LocalStack) -> None:
    await LocalStack(local.home, frozenset({"mariadb"})).down()
    one, two = LocalStack(local.home), LocalStack(local.home)
    first, second = await asyncio.gather(one.up(lambda _: None), two.up(lambda _: None))
    assert first == second
    pid = local.part("mariadb").pid
    data = str(local.home / "data" / "mariadb")
    servers = [p.pid for p in psutil.process_iter() if any(data in word for word in _command_line(p))]
    assert servers == [pid]


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


async def test_servers_listen_on_loopback_alone(local: LocalStack) -> None:
    state = read_state(local.home)
    assert state is not None
    listening = {c.laddr.ip for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port in state.ports.values()}
    assert listening <= {LOOPBACK, f"::ffff:{LOOPBACK}"}
    assert listening


async def test_databases_refuse_a_wrong_password(local: LocalStack) -> None:
    state = read_state(local.home)
    assert state is not None
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(addresses_of(local).postgres.replace(state.postgres_password, "wrong"))
    dsn = addresses_of(local).mariadb
    assert dsn is not None
    with pytest.raises(OperationalError, match="Access denied"):
        await aiomysql.connect(**mariadb_arguments(dsn.replace(state.mariadb_password, "wrong")))


async def test_postgres_has_pgvector_and_logical_decoding(local: LocalStack) -> None:
    async with postgres(local) as connection:
        assert await connection.fetchval("SELECT '[1,2]'::vector <-> '[1,4]'::vector") == 2
        assert await connection.fetchval("SHOW wal_level") == "logical"


async def test_a_record_of_16_mib_passes_the_broker(local: LocalStack) -> None:
    kafka = addresses_of(local).kafka
    await create_topics(kafka, "large", max_bytes=RECORD_BYTES + 64 * 1024)
    value = os.urandom(1024) * (RECORD_BYTES // 1024)
    await produce(kafka, "large", value)
    assert await read(kafka, "large", 1) == [value]


async def test_a_topic_that_nobody_made_is_not_made_by_writing_to_it(local: LocalStack) -> None:
    kafka = addresses_of(local).kafka
    producer = AIOKafkaProducer(bootstrap_servers=kafka, request_timeout_ms=1_000)
    await producer.start()
    try:
        with pytest.raises(KafkaError):
            await producer.send_and_wait("nobody-made-this", b"x")
    finally:
        await producer.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        assert "nobody-made-this" not in await admin.list_topics()
    finally:
        await admin.close()


async def watch(name: str, connect: ConnectClient, states: set[str]) -> None:
    """Collect the states that Connect reports for a connector while it starts."""
    while True:
        with contextlib.suppress(ConnectUnreachable):
            states.add((await connect.status(name)).state)
        await asyncio.sleep(0.01)


async def test_everything_killed_comes_back_with_records_rows_and_a_running_connector(local: LocalStack) -> None:
    addresses = addresses_of(local)
    table, prefix = "public.survivors", "survivors"
    await create_topics(addresses.kafka, "kept", *capture_topics(prefix, [table]))
    await produce(addresses.kafka, "kept", b"one", b"two")
    async with postgres(local) as connection:
        await connection.execute(
            "CREATE TABLE survivors (id bigint PRIMARY KEY); ALTER TABLE survivors REPLICA IDENTITY FULL;"
            "INSERT INTO survivors VALUES (1)"
        )
    async with mariadb(local) as cursor:
        await cursor.execute("CREATE TABLE survivors (id bigint PRIMARY KEY)")
        await cursor.execute("INSERT INTO survivors VALUES (1)")
    async with ConnectClient(addresses.connect) as connect:
        config = postgres_connector(
            "survivors", addresses.postgres, prefix, [table], slot="survivors", publication="survivors"
        )
        await connect.put_config("survivors", config)
        await connect.wait_running("survivors", 30)
        await read(addresses.kafka, f"{prefix}.{table}", 1)
        before = await pids(local)
        for name in PART_NAMES:
            local.part(name).kill()
        assert not any((await pids(local)).values())

        states: set[str] = set()
        watching = asyncio.create_task(watch("survivors", connect, states))
        assert await local.up(lambda _: None) == addresses
        watching.cancel()
        # Connect answers 404 while it starts. If that counted as MISSING, collections would be quarantined wrongly.
        assert "MISSING" not in states
        after = await pids(local)
        assert all(after.values())
        assert not set(before.values()) & set(after.values())
        assert await read(addresses.kafka, "kept", 2) == [b"one", b"two"]
        await connect.wait_running("survivors", 60)
    async with mariadb(local) as cursor:
        await cursor.execute("SELECT id FROM survivors")
        assert await cursor.fetchall() == ((1,),)
    async with postgres(local) as connection:
        assert await connection.fetchval("SELECT count(*) FROM survivors") == 1
        await connection.execute("INSERT INTO survivors VALUES (2)")
    await read_until(addresses.kafka, f"{prefix}.{table}", b'"after":{"id":2}')


async def test_status_tells_a_dead_part_and_up_starts_it_alone(local: LocalStack) -> None:
    before = await pids(local)
    local.part("mariadb").kill()
    dead = next(part for part in await local.status() if part.name == "mariadb")
    assert (dead.state, dead.pid) == ("stopped", None)
    assert "ended by itself" in dead.detail
    await local.up(lambda _: None)
    after = await pids(local)
    assert after.pop("mariadb") not in (None, before.pop("mariadb"))
    assert after == before


async def test_status_tells_a_part_that_runs_without_answering(local: LocalStack) -> None:
    pid = local.part("postgres").pid
    assert pid is not None
    process = psutil.Process(pid)
    process.suspend()
    try:
        part = next(part for part in await local.status() if part.name == "postgres")
    finally:
        process.resume()
    assert (part.state, part.pid) == ("unhealthy", pid)


async def test_down_leaves_no_process_and_up_finds_the_same_ports_and_data(local: LocalStack) -> None:
    addresses = addresses_of(local)
    async with postgres(local) as connection:
        await connection.execute("CREATE TABLE stays (id bigint); INSERT INTO stays VALUES (7)")
    await local.down()
    assert {part.state for part in await local.status()} == {"stopped"}
    assert [p.pid for p in psutil.process_iter() if any(str(local.home) in word for word in _command_line(p))] == []
    await local.down()

    assert await local.up(lambda _: None) == addresses
    async with postgres(local) as connection:
        assert await connection.fetchval("SELECT id FROM stays") == 7


async def test_a_port_taken_by_a_stranger_is_named_and_not_given_up(local: LocalStack) -> None:
    part = local.part("mariadb")
    await part.stop()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind((LOOPBACK, part.port))
        stranger.listen()
        with pytest.raises(TaskFailed, match=rf"port {part.port} is taken by .*process {os.getpid()}"):
            await local.up(lambda _: None)
    await local.up(lambda _: None)
    assert local.part("mariadb").port == part.port


async def test_a_lock_file_that_names_a_stranger_does_not_stop_postgres(local: LocalStack) -> None:
    """After a power cut, the pid in PostgreSQL's lock file may belong to any program."""
    local.part("postgres").kill()
    lock = local.home / "data" / "postgres" / "postmaster.pid"
    lines = lock.read_text().splitlines()
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    await local.up(lambda _: None)
    assert local.part("postgres").pid is not None


def test_stop_order_ends_users_before_what_they_use() -> None:
    assert set(STOP_ORDER) == set(PART_NAMES)
    assert STOP_ORDER.index("connect") < STOP_ORDER.index("kafka") < STOP_ORDER.index("postgres")
