"""Witnesses: points of a Qdrant collection that were written, by which it is known again. Values alone.

A collection that was made again has none of them, one restored from a snapshot lacks the newest, and another one in its
place has others. Points are never deleted (a deletion leaves a tombstone), so that a witness that is not there says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# So many fit into what is recorded of an identity, 1,000 characters.
RECENT, SAMPLED = 12, 8


@dataclass(frozen=True, slots=True)
class Witness:
    """A point, by its 16 bytes (`domain.keys.packed_id`), and a version that it had."""

    point: bytes
    version: int


def chosen(recent: Iterable[Witness], sampled: Iterable[Witness]) -> tuple[Witness, ...]:
    """Return the newest of those that were written lately, and some of all."""
    newest: dict[bytes, int] = {}
    for one in recent:
        newest[one.point] = max(one.version, newest.get(one.point, 0))
    first = sorted((Witness(*both) for both in newest.items()), key=lambda one: one.version)[-RECENT:]
    others = {one.point: one for one in sampled if one.point not in {each.point for each in first}}
    return (*list(others.values())[:SAMPLED], *first)


def missing(witnesses: Sequence[Witness], versions: Mapping[bytes, int]) -> str:
    """Say what is wrong with a collection that has `versions` of the points, nothing where it is the same.

    One that lacks the newest of them was set back, one that lacks half of them is another. A single older one may be
    damage to that point alone, which the comparison of both stores finds.
    """
    lost = [one for one in witnesses if versions.get(one.point, -1) < one.version]
    newest = max((one.version for one in witnesses), default=0)
    if lost and (2 * len(lost) >= len(witnesses) or (newest and any(one.version == newest for one in lost))):
        return f"{len(lost)} of {len(witnesses)} points that were written are missing or older"
    return ""
