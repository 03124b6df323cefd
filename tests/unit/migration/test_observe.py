"""What an observer reports of each collection, on brokers that the test supplies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition as Assigned
from aiokafka.structs import OffsetAndMetadata

from connectors.kafka.offsets import KafkaOffsets
from migration import observe
from migration.observe import Observer
from schemas.records import TopicPartition
from schemas.settings import Collection, Kafka, Settings
from topics.catalogue import LOG, PARKED, group_of, parked_group_of

NOW_S, END, COMMITTED, RESUMES = 1000.0, 100, 98, 60
RESOLVER = group_of("resolver")


class Offsets(KafkaOffsets):
    """The offsets of a broker whose topics have one partition, with records written one second after another."""

    commits: Mapping[str, OffsetAndMetadata] = {
        RESOLVER: OffsetAndMetadata(COMMITTED, ""),
        parked_group_of(RESOLVER, "away"): OffsetAndMetadata(RESUMES, PARKED),
        parked_group_of(RESOLVER, "back"): OffsetAndMetadata(RESUMES, ""),  # outdated: it is not parked any more
    }

    async def bounds(self, topics: Iterable[str]) -> dict[TopicPartition, tuple[int, int]]:
        return {(topic, 0): (0, END) for topic in topics}

    async def oldest_s(self, places: Mapping[TopicPartition, int]) -> float | None:
        return min(NOW_S - (END - at) for at in places.values())

    async def list_consumer_group_offsets(self, group: str) -> dict[Assigned, OffsetAndMetadata]:
        return {Assigned(LOG, 0): self.commits[group]} if group in self.commits else {}

    @asynccontextmanager
    async def _clients(self) -> AsyncIterator[tuple[Any, Any]]:
        yield self, SimpleNamespace()


async def test_the_lag_of_a_collection_counts_the_records_that_a_role_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "KafkaOffsets", Offsets)
    collection = Collection(connector="postgres", table="public.articles", key=("id",), text=("body",))
    collections = dict.fromkeys(("away", "back", "never"), collection)
    observer = Observer(Settings(kafka=Kafka(bootstrap="b:1"), collections=collections), now_s=lambda: NOW_S)
    try:
        found = await observer.look(list(collections))
    finally:
        await observer.close()
    lags = {
        progress.collection: [(lag.messages, lag.seconds) for lag in progress.lags or () if lag.role == "resolver"]
        for progress in found
    }
    assert lags == {
        "away": [(END - RESUMES, float(END - RESUMES))],
        "back": [(END - COMMITTED, float(END - COMMITTED))],
        "never": [(END - COMMITTED, float(END - COMMITTED))],
    }
