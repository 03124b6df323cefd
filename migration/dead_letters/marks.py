"""Marks of the replayed dead letters of one partition. Pure values, no broker."""

from __future__ import annotations

from dataclasses import dataclass

import orjson


@dataclass(frozen=True, slots=True)
class ReplayMarks:
    """Replayed offsets: all below `below`, and the inclusive ranges `above`, which are ascending and do not touch."""

    below: int = 0
    above: tuple[tuple[int, int], ...] = ()

    def __contains__(self, offset: int) -> bool:
        return offset < self.below or any(first <= offset <= last for first, last in self.above)

    def add(self, offset: int) -> ReplayMarks:
        """Return the marks with one more offset."""
        if offset in self:
            return self
        ranges: list[tuple[int, int]] = []
        for first, last in sorted([*self.above, (offset, offset)]):
            if ranges and first <= ranges[-1][1] + 1:
                ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
            else:
                ranges.append((first, last))
        below = self.below
        while ranges and ranges[0][0] <= below:
            below = max(below, ranges.pop(0)[1] + 1)
        return ReplayMarks(below, tuple(ranges))

    def encode(self) -> bytes:
        """Return the marks as JSON, for a record of the topic that keeps them."""
        return orjson.dumps({"below": self.below, "above": self.above})

    @classmethod
    def decode(cls, data: bytes) -> ReplayMarks:
        """Return the marks of a record. Raises ValueError for one that `encode` did not write."""
        try:
            read = orjson.loads(data)
            return cls(int(read["below"]), tuple((int(first), int(last)) for first, last in read["above"]))
        except (KeyError, TypeError, orjson.JSONDecodeError) as error:
            raise ValueError(f"these are no replay marks: {error}") from error
