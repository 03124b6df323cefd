"""Whether a topic is still the one that was recorded, and what follows where it is not. Values alone.

A version is an offset of the document log, and a producer's position one of the submitted topic: in a topic that was
made again both begin below what the ledger has seen, and every change would be taken for an old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Offsets = Mapping[int, int]
"""An offset for each partition of a topic."""
NONE: Offsets = {}


@dataclass(frozen=True, slots=True)
class TopicMark:
    """What is recorded of a topic: cluster and id (empty where brokers are too old to say), and the offsets seen.

    `ends` are the highest ends, `read` what each role had committed.
    """

    cluster: str
    topic: str
    ends: Offsets = field(default_factory=dict)
    read: Mapping[str, Offsets] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicLook:
    """What the brokers say of a topic that exists. `bounds` are the oldest kept and the next offset of partitions."""

    cluster: str
    topic: str
    bounds: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    read: Mapping[str, Offsets] = field(default_factory=dict)

    @property
    def mark(self) -> TopicMark:
        """What is to be recorded of it."""
        return TopicMark(self.cluster, self.topic, {at: end for at, (_, end) in self.bounds.items()}, self.read)


@dataclass(frozen=True, slots=True)
class Replaced:
    """A topic that is not the one that was recorded. `sure`: nothing but a replacement looks like it, even once.

    Not sure are the offsets: a broker that just came back may know of fewer for a moment. `moved`: it is on another
    cluster, and may be a copy.
    """

    topic: str
    said: str
    sure: bool
    moved: bool = False


def replaced(name: str, mark: TopicMark, look: TopicLook | None) -> Replaced | None:
    """Compare a topic with what is recorded of it; None where it is the same, and nothing unread is gone."""
    if look is None:
        return Replaced(name, f"{name} does not exist any more", sure=False)
    if mark.cluster and look.cluster and mark.cluster != look.cluster:
        return Replaced(name, f"{name} is on another cluster ({look.cluster}, it was {mark.cluster})", True, moved=True)
    if mark.topic and look.topic and mark.topic != look.topic:
        return Replaced(name, f"{name} was deleted and created again", sure=True)
    said = _went_back(mark, look) or _unread_gone(mark, look)
    return Replaced(name, f"{name}: {said}", sure=False) if said else None


def _went_back(mark: TopicMark, look: TopicLook) -> str:
    for at, end in mark.ends.items():
        now = look.bounds.get(at, (0, 0))[1]
        if now < end:
            return f"partition {at} ends at offset {now}, it ended at {end}"
    for role, offsets in look.read.items():
        for at, offset in offsets.items():
            if at in look.bounds and look.bounds[at][1] < offset:
                return f"partition {at} ends at offset {look.bounds[at][1]}, {role} has read up to {offset}"
    return ""


def _unread_gone(mark: TopicMark, look: TopicLook) -> str:
    for role in {*mark.read, *look.read}:
        committed = {**mark.read.get(role, NONE), **look.read.get(role, NONE)}
        for at, (begin, _) in look.bounds.items():
            if at in committed and committed[at] < begin:
                return f"{begin - committed[at]} records of partition {at} were deleted before {role} read them"
    return ""


@dataclass(frozen=True, slots=True)
class Adoption:
    """What makes every accepted change take effect again after some of the working topics were replaced.

    `version_epoch`, `producer_epoch`: which are raised. `restart`: the roles that read their topic from its beginning.
    `forget`: producers' changes whose decision may be lost are forgotten, so that they are taken when they come again.
    `behind`: Qdrant may lack changes that no topic has any more, so it is to be compared with the table.
    """

    version_epoch: bool
    producer_epoch: bool
    restart: frozenset[str]
    forget: bool
    behind: bool


def adoption(submitted: bool, log: bool, resolved: bool, embedded: bool) -> Adoption:
    """Return what follows from the replacement of these topics.

    Where entries of the log may be lost, intake and capture read their topics again, and where decisions may be, intake
    does: what was folded is known by its position, and passed over. Every reader of a topic that was replaced begins
    with its first record: all of it was written since, or is a copy whose changes are known by their positions, too.
    """
    again = log or resolved
    restart: set[str] = set()
    if submitted or again:
        restart.add("intake")
    if log:
        restart |= {"capture", "resolver"}
    if resolved:
        restart |= {"legacy", "embedder"}
    if embedded:
        restart.add("vector")
    return Adoption(log, submitted, frozenset(restart), resolved, again or embedded)


def named(topics: Iterable[Replaced]) -> str:
    """Return what happened to topics, as the detail of a stop."""
    return "; ".join(one.said for one in topics)
