"""The barrier over database log and topics: a row committed before it is in Qdrant once the barrier has drained."""

from __future__ import annotations

import pytest

from connectors.kafka.connect import ConnectClient
from connectors.kafka.offsets import KafkaOffsets
from migration.capture.barrier import drained
from migration.capture.positions import captured, replication_position
from migration.lag import pipeline
from tests.flow.site import Store
from topics.captures import Capture

pytestmark = pytest.mark.stack
LIMIT_S = 60.0


async def test_a_row_that_was_committed_before_the_barrier_is_in_qdrant_when_it_opens(docs: Store) -> None:
    settings = docs.site.opened.settings
    kafka, ports = settings.kafka, docs.ports
    assert kafka.bootstrap is not None
    assert kafka.connect is not None
    assert ports.capture is not None
    source = (ports.settings.connector, ports.settings.dsn or "", ports.capture)
    topic = ports.capture.topic
    offsets = KafkaOffsets(kafka.bootstrap)
    try:
        async with ConnectClient(kafka.connect) as client:
            for number in range(2):
                await docs.execute(f"insert into {{t}} values ('barrier-{number}', 't', 'Committed before.', 'sql', 1)")
                assert await captured(client, *source, LIMIT_S)
                assert await drained(offsets, pipeline([topic]), LIMIT_S)
                assert len(await docs.points(f"barrier-{number}")) == 1
            place = await replication_position(client, *source)
            assert (place.state, place.note) == ("RUNNING", None)
    finally:
        await offsets.close()
        await docs.execute("delete from {t} where id like 'barrier-%'")


async def test_a_place_that_nobody_captures_is_never_passed(docs: Store) -> None:
    settings = docs.ports.settings
    async with ConnectClient(docs.site.opened.settings.kafka.connect or "") as client:
        assert not await captured(client, settings.connector, settings.dsn or "", Capture(77, "p", "nobody", "t"), 1.0)
