"""A role's records in memory are bounded in bytes, not only in number: documents at the limit do not fill memory."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from agents.batch import Batch, Failures
from connectors.kafka.admin import delete_topics
from connectors.kafka.bus import AiokafkaBus
from schemas.cloudevents import decode, encode
from schemas.dead_letters import SUFFIX
from schemas.documents import DocumentEmbedded, EmbeddedChunk
from schemas.settings import Kafka
from stack.layout import StackAddresses
from tests.contract.consuming import BOUNDS, all_committed, consuming, make_topic, role_name

pytestmark = pytest.mark.stack
DOCUMENTS = 256
CHUNKS = 1000
MIB = 1024 * 1024


@pytest.fixture
async def topic(stack: StackAddresses) -> AsyncIterator[str]:
    name = f"test.bytes.{uuid4().hex}"
    await make_topic(stack.kafka, name, 2, 16 * MIB)
    yield name
    await delete_topics(stack.kafka, [name, name + SUFFIX])


async def test_256_documents_of_a_mebibyte_are_handled_within_a_few_batches_of_memory(
    stack: StackAddresses, topic: str, tmp_path: Path
) -> None:
    """With their vectors they take 800 MB. Like the vector writer, the handler decodes a whole batch of them."""
    kafka = Kafka(bootstrap=stack.kafka)
    await fill(AiokafkaBus(kafka), topic)
    process, held, seen = psutil.Process(os.getpid()), [0], [0]
    before = process.memory_info().rss

    async def handle(batch: Batch) -> Failures:
        events = [decode(message.record, DocumentEmbedded)[0] for message in batch]
        held[0] = max(held[0], sum(len(message.record.value or b"") for message in batch))
        seen[0] += len(events)
        await asyncio.sleep(0.01)
        return []

    peak = 0
    role = role_name()
    async with consuming(kafka, topic, handle, tmp_path, role):
        committed = asyncio.create_task(all_committed(kafka, role, topic, limit_s=120))
        while not committed.done():
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.02)
        await committed
    assert seen[0] == DOCUMENTS
    assert held[0] < BOUNDS.bytes + 4 * MIB
    assert (peak - before) // MIB < 200


async def fill(bus: AiokafkaBus, topic: str) -> None:
    text, vector = "lorem ipsum " * (MIB // CHUNKS // 12), struct.pack("<384f", *range(384))
    chunks = tuple(EmbeddedChunk(text=text, vector=vector) for _ in range(CHUNKS))
    for number in range(DOCUMENTS):
        event = DocumentEmbedded(
            collection="docs",
            id=str(number),
            version=number + 1,
            origin="producer",
            tenant="default",
            content_hash="h",
            model="m",
            chunks=chunks,
        )
        await bus.publish([encode(event, topic=topic, key=f"docs/{number}", event_id="e", source="s", time_ms=0)])
    await bus.close()
