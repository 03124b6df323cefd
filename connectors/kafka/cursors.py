"""Where the parked collections of a role resume: for each, the offsets of a consumer group that nobody joins.

A group is Kafka's own store for offsets, and as durable as the role's own offsets. Whether a collection is still parked
is in the metadata of the offset, because an offset is never removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Assigned
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from connectors.kafka.admin import admin_client
from connectors.kafka.errors import mapped
from connectors.kafka.offsets import group_offsets
from schemas.records import TopicPartition
from topics.catalogue import PARKED, group_of, parked_group_of


class KafkaCursors:
    """The cursors of one role."""

    def __init__(self, bootstrap: str, role: str) -> None:
        self._bootstrap, self._role = bootstrap, role
        self._writers: dict[str, AIOKafkaConsumer] = {}

    async def load(self, names: Iterable[str]) -> dict[str, dict[TopicPartition, int]]:
        """Return the offsets at which parked collections resume. Raises StoreUnavailable."""
        found: dict[str, dict[TopicPartition, int]] = {}
        async with admin_client(self._bootstrap) as admin:
            for name in names:
                offsets = await group_offsets(admin, parked_group_of(group_of(self._role), name), PARKED)
                if offsets:
                    found[name] = offsets
        return found

    async def committed(self) -> dict[TopicPartition, int]:
        """Return the offsets that the role itself committed. Raises StoreUnavailable."""
        async with admin_client(self._bootstrap) as admin:
            return await group_offsets(admin, group_of(self._role))

    async def park(self, name: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Remember where a collection resumes; return when that is stored. Raises StoreUnavailable."""
        await self._commit(name, offsets, PARKED)

    async def unpark(self, name: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Forget where a collection resumes, for the given partitions. Raises StoreUnavailable."""
        await self._commit(name, offsets, "")

    async def _commit(self, name: str, offsets: Mapping[TopicPartition, int], metadata: str) -> None:
        if not offsets:
            return
        group = parked_group_of(group_of(self._role), name)
        try:
            writer = await self._writer(name, group)
            places = {Assigned(*place): OffsetAndMetadata(at, metadata) for place, at in offsets.items()}
            wanted = set(places) | writer.assignment()
            if wanted != writer.assignment():
                writer.assign(list(wanted))
                writer.pause(*wanted)  # it commits offsets and reads nothing
            await writer.commit(places)
        except (KafkaError, OSError) as error:
            raise mapped(error, group) from error

    async def _writer(self, name: str, group: str) -> AIOKafkaConsumer:
        if name not in self._writers:
            writer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                group_id=group,
                client_id="crossfade-cursors",
                enable_auto_commit=False,
            )
            try:
                await writer.start()
            except BaseException:
                await writer.stop()
                raise
            self._writers[name] = writer
        return self._writers[name]

    async def close(self) -> None:
        """Close the connections."""
        while self._writers:
            _, writer = self._writers.popitem()
            with suppress(KafkaError, OSError):
                await writer.stop()
