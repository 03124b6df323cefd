"""Whether a topic is still the one that was recorded, and what follows if it is not. Values only.

A version is an offset in the document log, and a producer's position an offset in the submitted topic. In a recreated
topic both begin below what the ledger has seen, so every change would be taken for an old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Offsets = Mapping[int, int]
"""An offset for each partition of a topic."""
NONE: Offsets = {}


@dataclass(frozen=True, slots=True)
class TopicMark:
    """The record of a topic: cluster and topic id (empty if brokers are too old to report them), and the offsets seen.

    `ends` are the highest end offsets, `read` the offsets that each role had committed.
    """

    cluster: str
    topic: str
    ends: Offsets = field(default_factory=dict)
    read: Mapping[str, Offsets] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicLook:
    """An existing topic as the brokers report it. `bounds` are each partition's oldest kept offset and next offset."""

    cluster: str
    topic: str
    bounds: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    read: Mapping[str, Offsets] = field(default_factory=dict)

    @property
    def mark(self) -> TopicMark:
        """The record to keep of this topic."""
        return TopicMark(self.cluster, self.topic, {at: end for at, (_, end) in self.bounds.items()}, self.read)


@dataclass(frozen=True, slots=True)
class Replaced:
    """A topic that is not the one that was recorded. `sure`: a single check is enough, only a replacement explains it.

    Findings by offset are not sure: a broker that just came back may briefly report fewer records. `moved`: the topic
    is on another cluster and may be a copy.
    """

    topic: str
    message: str
    sure: bool
    moved: bool = False


def replaced(name: str, mark: TopicMark, look: TopicLook | None) -> Replaced | None:
    """Compare a topic with its record; return None if it is the same and no unread records are gone."""
    if look is None:
        return Replaced(name, f"{name} does not exist any more", sure=False)
    if mark.cluster and look.cluster and mark.cluster != look.cluster:
        return Replaced(name, f"{name} is on another cluster ({look.cluster}, it was {mark.cluster})", True, moved=True)
    if mark.topic and look.topic and mark.topic != look.topic:
        return Replaced(name, f"{name} was deleted and created again", sure=True)
    text = _went_back(mark, look) or _unread_gone(mark, look)
    return Replaced(name, f"{name}: {text}", sure=False) if text else None


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
    """The steps by which every accepted change takes effect again after some working topics were replaced.

    `version_epoch`, `producer_epoch`: whether each is raised. `restart`: the roles that read their topic from its
    beginning. `forget`: forget producers' changes whose decision may be lost, so that they are taken when they arrive
    again. `behind`: Qdrant may lack changes that no topic has any more, so it must be compared with the table.
    """

    version_epoch: bool
    producer_epoch: bool
    restart: frozenset[str]
    forget: bool
    behind: bool


def adoption(submitted: bool, log: bool, resolved: bool, embedded: bool) -> Adoption:
    """Return the steps that follow from the replacement of these topics.

    If entries of the log may be lost, intake and capture read their topics again. If decisions may be lost, intake
    does. Changes that were folded already are recognised by their positions and skipped. Every reader of a replaced
    topic begins with its first record: its records were all written since, or are copies that are also recognised by
    their positions.
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
    """Return what happened to topics, as the detail of a quarantine."""
    return "; ".join(one.message for one in topics)
