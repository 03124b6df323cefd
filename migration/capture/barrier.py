"""The barrier: waits until everything in flight has drained, from the database's log through the topics to the stores.

Nothing is committed here, and no role is waited for longer than the limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from connectors.addresses import brokers_of, connect_of, dsn_of
from connectors.errors import TaskFailed
from connectors.kafka.connect import ConnectClient
from connectors.kafka.offsets import KafkaOffsets
from connectors.ports import Ledger
from domain.quarantine import Reason
from migration.capture.positions import captured
from migration.lag import RoleReads, pipeline
from migration.state import CollectionState
from schemas.records import TopicPartition
from schemas.settings import Settings
from topics.captures import Capture
from topics.roles import BARRIER

_POLL_S = 0.2

Report = Callable[[str, int], None]
"""Receives, at every poll, a role and how many records it has still to commit. What it raises ends the wait."""


class Offsets(Protocol):
    """What a barrier reads from the brokers."""

    async def bounds(self, topics: Iterable[str]) -> dict[TopicPartition, tuple[int, int]]:
        """Return the oldest kept offset and the next offset of each partition of those topics that exist."""
        ...

    async def committed(self, group: str) -> dict[TopicPartition, int]:
        """Return the committed offsets of a group."""
        ...


def _unreported(_: str, __: int) -> None:
    """Ignore the result of a poll."""


async def drained(offsets: Offsets, reads: Sequence[RoleReads], limit_s: float, report: Report = _unreported) -> bool:
    """Return True once everything now in the topics has gone through every role, False if that takes too long.

    What capture has not read from the database's log yet is in no topic: see `migration.capture.positions.captured`.
    """
    roles = {each.role: each for each in reads}
    try:
        async with asyncio.timeout(limit_s):
            for stage in BARRIER:
                waited = [roles[role.name] for role in stage if role.name in roles]
                ends = {each: await offsets.bounds(each.topics) for each in waited}
                for each in waited:
                    await _committed(offsets, each, ends[each], report)
    except TimeoutError:
        return False
    return True


async def _committed(
    offsets: Offsets, reads: RoleReads, bounds: Mapping[TopicPartition, tuple[int, int]], report: Report
) -> None:
    waited = {place: end for place, (begin, end) in bounds.items() if end > begin}
    while waited:
        committed = await offsets.committed(reads.group)
        waited = {place: end for place, end in waited.items() if committed.get(place, 0) < end}
        if waited:
            report(reads.role, sum(end - committed.get(place, bounds[place][0]) for place, end in waited.items()))
            await asyncio.sleep(_POLL_S)


class Barrier:
    """The barrier of one collection, as an asynchronous context manager. Connects on first use."""

    def __init__(self, settings: Settings, name: str, ledger: Ledger) -> None:
        self._settings, self._name, self._ledger = settings, name, ledger
        self._offsets: KafkaOffsets | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._offsets is not None:
            await self._offsets.close()

    async def drained(self, limit_s: float) -> bool:
        """Return whether everything now committed in the database and published went through every role in time.

        If captured changes of a quarantined collection are not taken, only published records are waited for. If no role
        takes a record, nothing is waited for. Raises StoreUnavailable.
        """
        ends = time.monotonic() + limit_s
        quarantine = await CollectionState(self._ledger, self._name).quarantine()
        if quarantine is not None and quarantine.reason is Reason.TOPIC_REPLACED:
            return True
        topics: list[str] = []
        if quarantine is None or quarantine.captures:
            capture = await self._captured(limit_s)
            if capture is None:
                return False
            topics = [capture.topic]
        if self._offsets is None:
            self._offsets = KafkaOffsets(brokers_of(self._settings.kafka), collection=self._name)
        return await drained(self._offsets, pipeline(topics), max(1.0, ends - time.monotonic()))

    async def _captured(self, limit_s: float) -> Capture | None:
        """Wait until everything committed now is in capture's topic; return None if that takes too long."""
        kafka, collection = self._settings.kafka, self._settings.collections[self._name]
        capture = await CollectionState(self._ledger, self._name).capture(kafka, collection)
        if capture is None:  # it was never captured
            return None
        try:
            async with ConnectClient(connect_of(kafka)) as client:
                dsn = dsn_of(self._name, collection)
                if await captured(client, collection.connector, dsn, capture, limit_s):
                    return capture
        except TaskFailed:  # Kafka Connect does not answer, so it is unknown what is captured
            pass
        return None
