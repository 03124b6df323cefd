"""How often a process that handles many values collects cyclic garbage."""

from __future__ import annotations

import gc


def collect_rarely(allocations: int = 50_000) -> None:
    """Collect once in `allocations` allocations, and exclude the objects that exist now from every later collection.

    For processes whose rows, points and records form no reference cycles. The collector would find little and traverse
    all of them again and again, which took a quarter of the time of a backfill.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(allocations, 20, 20)
