"""Consumer groups from outside: whether they have members, and where they resume.

A group must have no members while its offsets are set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import NoError, for_code
from aiokafka.protocol.commit import OffsetCommitRequest

from connectors.errors import StoreUnavailable
from connectors.kafka.admin import admin_client
from connectors.kafka.errors import mapped
from schemas.records import TopicPartition

# States of a group without members.
_LEFT = frozenset({"Empty", "Dead"})
_ANY_GENERATION, _NO_MEMBER, _KEEP = -1, "", -1


async def busy_groups(bootstrap: str, groups: Iterable[str]) -> list[str]:
    """Return the groups that have members. Raises StoreUnavailable."""
    busy: list[str] = []
    async with admin_client(bootstrap) as admin:
        for group in groups:
            (answer,) = await admin.describe_consumer_groups([group])
            for code, name, state, *_ in answer.groups:
                if for_code(code) is NoError and state not in _LEFT:
                    busy.append(name)
    return busy


async def set_offsets(bootstrap: str, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Set the offsets at which a group resumes. Raises StoreUnavailable, also if the group has members."""
    async with admin_client(bootstrap) as admin:
        await _commit(admin, group, offsets)


async def _commit(admin: AIOKafkaAdminClient, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    topics: dict[str, list[tuple[int, int, str]]] = {}
    for (topic, partition), offset in sorted(offsets.items()):
        topics.setdefault(topic, []).append((partition, offset, ""))
    listed: Sequence[tuple[str, list[tuple[int, int, str]]]] = list(topics.items())
    request = OffsetCommitRequest(group, _ANY_GENERATION, _NO_MEMBER, _KEEP, listed)
    answer = await admin._send_request(request, await admin.find_coordinator(group))
    for topic, partitions in answer.topics:
        for _, code in partitions:
            if code:
                raise mapped(for_code(code)(f"{group} cannot be set to go on elsewhere"), topic)


async def left_alone(bootstrap: str, groups: Sequence[str], limit_s: float, poll_s: float = 0.5) -> list[str]:
    """Wait until no group has members; return the groups that still have some after `limit_s`."""
    deadline = asyncio.get_running_loop().time() + limit_s
    while True:
        try:
            busy = await busy_groups(bootstrap, groups)
        except StoreUnavailable:
            busy = list(groups)
        if not busy or asyncio.get_running_loop().time() >= deadline:
            return busy
        await asyncio.sleep(poll_s)
