"""Records of topics and epochs in the legacy databases, and the current epochs.

Every database has its own record, so a collection is never compared with what another database has seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Protocol, TypeVar

from connectors.errors import CrossfadeError
from connectors.ports import Ledger
from domain.topics import Offsets, TopicMark
from schemas.keys import FIRST_EPOCH
from schemas.settings import Collection
from topics.captures import Capture

EPOCH = "documents.log.epoch"
PRODUCER_EPOCH = "documents.submitted.epoch"
# Topics that were found replaced and are not adopted yet, separated by spaces. A later check may not find them again.
REPLACED = "topics.replaced"
_MOVED = "@moved"  # no topic name contains this
_NAME_LENGTH = 90
_PARTITIONS_A_VALUE = 60
_ENDS = "ends"


class Recorded(Protocol):
    """What this module needs of a collection."""

    @property
    def name(self) -> str:
        """The name of the collection."""
        ...

    @property
    def settings(self) -> Collection:
        """Its settings."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Its ledger."""
        ...

    @property
    def capture(self) -> Capture | None:
        """The names under which the collection is captured, None if it never was."""
        ...


R = TypeVar("R", bound=Recorded)


@dataclass(frozen=True, slots=True)
class Epochs:
    """The partition epoch of the log, and the epoch of the submitted topic, with which producers' positions begin."""

    version: int = FIRST_EPOCH
    producer: int = FIRST_EPOCH


async def epochs_of(ledgers: Iterable[Ledger]) -> Epochs:
    """Return the current epochs: the highest in any database, because an adoption may have been cut short."""
    found = Epochs()
    for ledger in ledgers:
        version, producer = await ledger.get_meta(EPOCH), await ledger.get_meta(PRODUCER_EPOCH)
        found = Epochs(max(found.version, version or 0), max(found.producer, producer or 0))
    return found


async def share(epochs: Epochs, collections: Mapping[str, R]) -> None:
    """Record the epochs in every database of the collections, including a database that was added after them."""
    for ports, *_ in databases(collections):
        await ports.ledger.raise_to(EPOCH, epochs.version)
        await ports.ledger.raise_to(PRODUCER_EPOCH, epochs.producer)


def databases(collections: Mapping[str, R]) -> list[list[R]]:
    """Return the collections, grouped by the tables that hold their records."""
    found: dict[tuple[str, str, str], list[R]] = {}
    for ports in collections.values():
        schema = ports.settings.table.rpartition(".")[0]
        found.setdefault((ports.settings.connector, ports.settings.dsn or "", schema), []).append(ports)
    return list(found.values())


async def reachable_epochs(collections: Mapping[str, R], known: Epochs) -> Epochs:
    """Return the epochs of the databases that answer, never lower than the known ones."""
    found = known
    for ports, *_ in databases(collections):
        try:
            read = await epochs_of([ports.ledger])
        except CrossfadeError:
            continue
        found = Epochs(max(found.version, read.version), max(found.producer, read.producer))
    return found


async def recorded_mark(ledger: Ledger, topic: str, roles: Sequence[str]) -> TopicMark | None:
    """Return the record of a topic and of how far roles have read it, None if nothing is recorded."""
    identity = await ledger.identity(f"topic.{_short(topic)}")
    if identity is None:
        return None
    cluster, _, topic_id = identity.partition("/")
    read = {role: await _offsets(ledger, f"read.{role}", topic) for role in roles}
    return TopicMark(cluster, topic_id, await _offsets(ledger, _ENDS, topic), read)


async def adopted_as(ledger: Ledger, topic: str) -> str | None:
    """Return the identity under which a topic was adopted in a database, None if it never was."""
    return await ledger.identity(f"adopted.{_short(topic)}")


async def record_adopted(ledger: Ledger, topic: str, identity: str) -> None:
    """Record the identity under which a topic is adopted."""
    await ledger.set_identity(f"adopted.{_short(topic)}", identity)


async def record_mark(ledger: Ledger, topic: str, mark: TopicMark, had: TopicMark | None = None) -> None:
    """Record a topic. Skip whatever `had` already contains."""
    for role, offsets in mark.read.items():
        if had is None or had.read.get(role) != offsets:
            await _record_offsets(ledger, f"read.{role}", topic, offsets)
    if had is None or had.ends != mark.ends:
        await _record_offsets(ledger, _ENDS, topic, mark.ends)
    if had is None or (had.cluster, had.topic) != (mark.cluster, mark.topic):
        await ledger.set_identity(f"topic.{_short(topic)}", f"{mark.cluster}/{mark.topic}")


async def found_replaced(ledger: Ledger) -> set[str]:
    """Return the topics that were found replaced in a database and not adopted yet."""
    return {one.removesuffix(_MOVED) for one in await _noted(ledger)}


async def found_moved(ledger: Ledger) -> set[str]:
    """Return the replaced topics that were found to be copies in another cluster."""
    return {one.removesuffix(_MOVED) for one in await _noted(ledger) if one.endswith(_MOVED)}


async def note_replaced(ledger: Ledger, topics: Iterable[str], moved: Iterable[str] = ()) -> None:
    """Add topics to the record of replaced topics, and mark those in `moved` as moved."""
    have, news = await _noted(ledger), {*topics, *(f"{one}{_MOVED}" for one in moved)}
    if not have >= news:
        await ledger.set_identity(REPLACED, " ".join(sorted(have | news)))


async def _noted(ledger: Ledger) -> set[str]:
    return set((await ledger.identity(REPLACED) or "").split())


async def _offsets(ledger: Ledger, kind: str, topic: str) -> Offsets:
    found: dict[int, int] = {}
    part = 0
    while value := await ledger.identity(f"{kind}.{_short(topic)}.{part}"):
        found |= {int(at): int(offset) for at, offset in json.loads(value)}
        part += 1
    return found


async def _record_offsets(ledger: Ledger, kind: str, topic: str, offsets: Offsets) -> None:
    listed = [[at, offsets[at]] for at in sorted(offsets)]
    parts = [listed[start : start + _PARTITIONS_A_VALUE] for start in range(0, len(listed), _PARTITIONS_A_VALUE)]
    # The empty last part ends the list in case it was longer before.
    for number, part in enumerate([*parts, []]):
        value = json.dumps(part, separators=(",", ":")) if part else ""
        await ledger.set_identity(f"{kind}.{_short(topic)}.{number}", value)


def _short(topic: str) -> str:
    return topic if len(topic) <= _NAME_LENGTH else sha1(topic.encode(), usedforsecurity=False).hexdigest()
