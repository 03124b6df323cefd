"""Finds records in given pieces of partitions, within a time limit, and says what was left unread. Commits nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from connectors.kafka.consumer import consumer as complete_consumer
from connectors.kafka.consumer import plain
from connectors.kafka.errors import mapped
from connectors.kafka.headers import received
from connectors.kafka.lag import Place
from schemas.records import Received

_POLL_MS = 200


@dataclass(frozen=True, slots=True)
class Found:
    """The records that were wanted, of `read` that were looked at; `unread` were not reached in time."""

    records: tuple[Received, ...]
    read: int
    unread: int


class Finder:
    """A reader that is used for one search after the other."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    async def search(
        self, pieces: Mapping[Place, tuple[int, int]], wanted: Callable[[Any], bool], limit_s: float
    ) -> Found:
        """Return the wanted records of these offsets, from the first up to but without the last.

        `wanted` gets the client library's records: most of them are not worth a conversion. Raises StoreUnavailable.
        """
        left = {TopicPartition(*place): end for place, (begin, end) in pieces.items() if begin < end}
        begins = {TopicPartition(*place): begin for place, (begin, _) in pieces.items()}
        found: list[Received] = []
        read = 0
        if not left:
            return Found((), 0, 0)
        deadline = time.monotonic() + limit_s
        try:
            self._consumer.assign(list(left))
            for place in left:
                self._consumer.seek(place, begins[place])
            while left and time.monotonic() < deadline:
                for place, records in (await self._consumer.getmany(*left, timeout_ms=_POLL_MS)).items():
                    within = [record for record in plain(records) if record.offset < left[place]]
                    read += len(within)
                    found += [received(record) for record in within if wanted(record)]
                # By position, not by record: the last offset may be one that no reader is shown.
                done = [place for place, end in left.items() if await self._consumer.position(place) >= end]
                for place in done:
                    del left[place]
            unread = sum([end - await self._consumer.position(place) for place, end in left.items()])
        except (KafkaError, OSError) as error:
            raise mapped(error, next(iter(pieces))[0]) from error
        finally:
            # aiokafka's fetcher does not survive the end of a subscription; the next search replaces this one.
            self._consumer.pause(*self._consumer.assignment())
        return Found(tuple(found), read, unread)


@asynccontextmanager
async def finder(bootstrap: str) -> AsyncIterator[Finder]:
    """Give a connected finder. Raises StoreUnavailable where the brokers do not answer."""
    consumer = complete_consumer(bootstrap, "crossfade-finder", fetch_max_wait_ms=_POLL_MS)
    try:
        try:
            await consumer.start()
        except (KafkaError, OSError) as error:
            raise mapped(error, bootstrap) from error
        await asyncio.sleep(0)  # a consumer that is stopped before its own tasks ran raises CancelledError
        yield Finder(consumer)
    finally:
        await consumer.stop()
