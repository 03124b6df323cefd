"""What a round of verification works through, besides the stores of the collection. `collection` binds each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from domain.comparison import Difference
from migration.verify.digests import Part
from migration.verify.result import Sample

T = TypeVar("T")
Barrier = Callable[[float], Awaitable[bool]]
"""Returns True once everything in flight has drained, False if that took longer than the given seconds."""
Resample = Callable[[Sequence[str]], Awaitable[tuple[Sample, list[Difference]]]]
"""Computes the vectors of documents again; returns what was compared, and the documents that differ.

Raises Misconfigured if the model is not the collection's, StoreUnavailable, EmbeddingUnavailable.
"""
Waits = Mapping[str, int]
"""By document, the producer's version that its ledger row was waiting for when it was read."""


class Retried(Protocol):
    """Repeats a call that may succeed later."""

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what the call returns, or raise what its last attempt raised."""
        ...


class Throttled(Protocol):
    """Keeps the work to a share of a core."""

    async def pause(self) -> None:
        """Sleep for as long as the share demands."""
        ...


class DigestStore(Protocol):
    """Keeps the digests of the last proof, by the number of a range."""

    def read(self, number: int, after: str | None, upto: str | None) -> Sequence[Part] | None:
        """Return the parts of a range's digests, None if there are none that fit."""
        ...

    def write(self, number: int, after: str | None, upto: str | None, parts: Sequence[Part]) -> None:
        """Store the digests of a range in one step."""
        ...

    def forget(self, number: int) -> None:
        """Remove the digests of a range that is no longer proved equal."""
        ...

    def clear(self) -> None:
        """Remove all digests of the collection."""
        ...


class DifferenceSink(Protocol):
    """Takes differences that a recheck confirmed: publishes them, and repairs them if that is requested."""

    async def publish(self, differences: Sequence[Difference], waited: Waits) -> int:
        """Publish differences; return how many repairs were begun. Raises StoreUnavailable, Misconfigured."""
        ...

    async def refresh(self, ids: Sequence[str], waited: Waits) -> int:
        """Begin the repair of documents if repairs are requested; return how many.

        Raises StoreUnavailable, Misconfigured.
        """
        ...

    async def unsound(self, drained: Callable[[], Awaitable[bool]]) -> Waits:
        """Return the documents whose ledger rows must be repaired; none if no repair is requested.

        `drained` waits at the barrier. Raises TransientError.
        """
        ...
