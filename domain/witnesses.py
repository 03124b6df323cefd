"""Witnesses: points that were written to a Qdrant collection, by which it is recognised. Values only.

A recreated collection has none of them, one restored from a snapshot lacks the newest, and a different collection in
its place has other points. Points are never deleted (a deletion leaves a tombstone), so missing witnesses reveal this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# This many fit into the 1,000 characters of a recorded identity.
RECENT, SAMPLED = 12, 8


@dataclass(frozen=True, slots=True)
class Witness:
    """A point, by its 16 bytes (`schemas.keys.packed_id`), and a version that it had."""

    point: bytes
    version: int


def chosen(recent: Iterable[Witness], sampled: Iterable[Witness]) -> tuple[Witness, ...]:
    """Return the newest of the recently written points, and some of the sampled ones."""
    newest: dict[bytes, int] = {}
    for one in recent:
        newest[one.point] = max(one.version, newest.get(one.point, 0))
    first = sorted((Witness(*both) for both in newest.items()), key=lambda one: one.version)[-RECENT:]
    others = {one.point: one for one in sampled if one.point not in {each.point for each in first}}
    return (*list(others.values())[:SAMPLED], *first)


def missing(witnesses: Sequence[Witness], versions: Mapping[bytes, int]) -> str:
    """Return what is wrong with a collection that has these `versions` of the points, the empty text if nothing is.

    A collection that lacks the newest witness was set back; one that lacks half of them is a different collection. A
    single older witness may mean damage to that point alone, which the comparison of both stores finds.
    """
    lost = [one for one in witnesses if versions.get(one.point, -1) < one.version]
    newest = max((one.version for one in witnesses), default=0)
    if lost and (2 * len(lost) >= len(witnesses) or (newest and any(one.version == newest for one in lost))):
        return f"{len(lost)} of {len(witnesses)} points that were written are missing or older"
    return ""
