"""Cuts many items into requests or statements of a bounded size. Nothing is sent from here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def slices(items: Sequence[T], sizes: Iterable[int], limit: int, most: int | None = None) -> list[list[T]]:
    """Cut items into runs of at most `limit` total size and at most `most` items. Each run has at least one item."""
    runs: list[list[T]] = []
    total = 0
    for item, size in zip(items, sizes, strict=True):
        if not runs or total + size > limit or len(runs[-1]) == most:
            runs.append([])
            total = 0
        runs[-1].append(item)
        total += size
    return runs
