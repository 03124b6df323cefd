"""How far the roles are behind, in records and in seconds. Commits nothing and waits for no role."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from connectors.kafka.offsets import KafkaOffsets
from topics.roles import PIPELINE


@dataclass(frozen=True, slots=True)
class RoleReads:
    """The consumer group of a role, and the topics that it reads."""

    role: str
    group: str
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoleLag:
    """How far a role is behind in one topic.

    `seconds` is the age of the oldest record that the role has not committed: 0 if there is none, None if that record
    could not be read in time.
    """

    role: str
    topic: str
    messages: int
    seconds: float | None


def pipeline(captured: Iterable[str]) -> tuple[RoleReads, ...]:
    """Return what each document role reads. `captured` are the topics of capture, one for each collection."""
    topics = tuple(captured)
    return tuple(RoleReads(role.name, role.group, role.topics(topics)) for role in PIPELINE)


async def role_lags(
    offsets: KafkaOffsets, reads: Sequence[RoleReads], now_s: Callable[[], float] = time.time
) -> list[RoleLag]:
    """Return how far each role is behind in each of its existing topics. Raises StoreUnavailable."""
    bounds = await offsets.bounds(topic for each in reads for topic in each.topics)
    found: list[RoleLag] = []
    for each in reads:
        committed = await offsets.committed(each.group)
        for topic in each.topics:
            behind = {
                place: (max(begin, committed.get(place, 0)), end)
                for place, (begin, end) in bounds.items()
                if place[0] == topic
            }
            if behind:
                waiting = {place: at for place, (at, end) in behind.items() if at < end}
                messages = sum(end - at for at, end in behind.values() if at < end)
                oldest_s = await offsets.oldest_s(waiting) if waiting else None
                seconds = None if oldest_s is None else max(0.0, now_s() - oldest_s)
                found.append(RoleLag(each.role, topic, messages, seconds if waiting else 0.0))
    return found
