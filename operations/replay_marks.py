"""Which dead letters of one partition were replayed, as a group's commit can hold it. Pure values, no broker.

A commit is an offset with up to 4,096 bytes of metadata: everything below the offset is done, and the metadata lists
the ranges above it that were replayed one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

METADATA_BYTES = 4096


class TooManyMarks(ValueError):
    """The single replays do not fit into a commit's metadata any more."""


@dataclass(frozen=True, slots=True)
class ReplayMarks:
    """Offsets that were replayed: all below `below`, and the inclusive ranges `above`, ascending and apart."""

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

    def metadata(self) -> str:
        """Return the ranges as text, as in `5 7-9`. Raises TooManyMarks when they are too many for a commit."""
        text = " ".join(str(first) if first == last else f"{first}-{last}" for first, last in self.above)
        if len(text) > METADATA_BYTES:
            raise TooManyMarks(f"{len(self.above)} single replays above offset {self.below}")
        return text

    @classmethod
    def read(cls, below: int, metadata: str) -> ReplayMarks:
        """Return the marks of a commit. Raises ValueError for metadata that this did not write."""
        ranges = []
        for part in metadata.split():
            first, _, last = part.partition("-")
            ranges.append((int(first), int(last or first)))
        return cls(max(0, below), tuple(ranges))
