"""How alike two ranked answers are. Pure: two lists of document ids, best first, without repetitions.

Source of the rank-biased overlap: Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", ACM
Transactions on Information Systems 28 (2010), equation 32.
"""

from __future__ import annotations

from collections.abc import Sequence

PERSISTENCE = 0.9
"""How likely a reader goes on from one rank to the next: at 0.9 the first ten ranks have 86 % of the weight."""


def overlap(first: Sequence[str], second: Sequence[str], k: int) -> float:
    """Return the share of the first `k` documents that both have, of those that the longer list has; 1 if none has."""
    ours, theirs = set(first[:k]), set(second[:k])
    longest = max(len(ours), len(theirs))
    return len(ours & theirs) / longest if longest else 1.0


def rank_biased_overlap(first: Sequence[str], second: Sequence[str], p: float = PERSISTENCE) -> float:
    """Return the rank-biased overlap, extrapolated beyond the lists' ends: 1 for equal lists, 0 for disjoint ones."""
    shorter, longer = sorted((first, second), key=len)
    if not longer:
        return 1.0
    if not shorter:
        return 0.0
    short, long = len(shorter), len(longer)
    common = [0]
    ours: set[str] = set()
    theirs: set[str] = set()
    for depth in range(1, long + 1):
        ours.update(shorter[depth - 1 : depth])
        theirs.add(longer[depth - 1])
        common.append(len(ours & theirs))
    total = sum(common[depth] / depth * p**depth for depth in range(1, long + 1))
    total += sum(common[short] * (depth - short) / (short * depth) * p**depth for depth in range(short + 1, long + 1))
    tail = ((common[long] - common[short]) / long + common[short] / short) * p**long
    return min(1.0, (1 - p) / p * total + tail)  # the sum may be above it by rounding


def rank_shift(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Return by how many ranks the documents that both lists have differ, on average; None if they share none."""
    ranks = {document: rank for rank, document in enumerate(second)}
    shifts = [abs(rank - ranks[document]) for rank, document in enumerate(first) if document in ranks]
    return sum(shifts) / len(shifts) if shifts else None
