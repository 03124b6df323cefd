"""How often a process that handles many values looks for garbage in cycles."""

from __future__ import annotations

import gc


def collect_rarely(allocations: int = 50_000) -> None:
    """Look once in so many allocations, and never again at what is there now.

    For processes whose rows, points and records refer back to nothing: the collector would find little and go through
    all of them again and again, a fourth of the time of a backfill.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(allocations, 20, 20)
