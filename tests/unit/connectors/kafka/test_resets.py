"""On uvloop, aiokafka treats a write to a connection that was reset as a broken connection."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from connectors.kafka.resets import survive_resets


async def _written_after_a_reset() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.transport.abort(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connection = AIOKafkaConnection("127.0.0.1", port)
    connection._reader, connection._writer = reader, writer
    connection._read_task = asyncio.create_task(reader.read())
    connection._versions = {MetadataRequest.API_KEY: (0, 1)}
    writer.transport.abort()
    await asyncio.sleep(0)
    try:
        connection.send(MetadataRequest([]))
    finally:
        server.close()


def test_a_write_after_a_reset_is_a_broken_connection() -> None:
    survive_resets()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, pytest.raises(KafkaConnectionError):
        runner.run(_written_after_a_reset())
