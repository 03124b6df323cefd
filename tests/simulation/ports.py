"""The ports that the production code gets in a simulation: each call is a point, with a chosen fault.

The in-memory adapters perform each read and write completely or not at all, unless the fault requires otherwise.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from connectors.embedding.memory import HashingEmbedder
from connectors.errors import (
    CrossfadeError,
    EmbeddingFailed,
    EmbeddingUnavailable,
    Refused,
    StoreUnavailable,
    TransientError,
)
from schemas.records import Outgoing
from tests.simulation.loop import Fault, Point, at_once
from topics.catalogue import WRITTEN

Seen = Callable[[str, str, Sequence[Any], Any], None]
"""Called with every effect: collection (empty for the bus), label of the call, its arguments, its result."""
Done = Callable[..., Awaitable[Any]]
# The calls that change something. A fault may leave a call in `DIVISIBLE` half done. All other calls are reads.
DIVISIBLE = frozenset({"bus.publish", "table.apply", "vectors.write"})
EFFECTS = DIVISIBLE | {"ledger.save_fold", "ledger.vectors_written", "ledger.confirm_refusals"}
REFUSALS = {"bus.publish": Refused, "vectors.write": Refused, "embedder.embed_documents": EmbeddingFailed}
POISON, NO_VECTOR = "poison", "novector"


class Trouble:
    """The faults of calls, and the calls that take effect late."""

    def __init__(self, seen: Seen) -> None:
        self.late: list[tuple[str, Callable[[], Coroutine[Any, Any, Any]]]] = []
        self._seen = seen
        self._published: set[Outgoing] = set()

    async def call(self, collection: str, label: str, done: Done, args: Sequence[Any], fault: Fault) -> Any:
        """Perform a call, or a part of it, now or later."""
        refused = fault is Fault.REFUSED and label in REFUSALS and not self._fits(label, args)
        if fault is Fault.BUSY or (fault is Fault.REFUSED and not refused):
            raise (EmbeddingUnavailable if label.startswith("embedder") else TransientError)("busy")
        if refused:
            raise REFUSALS[label]("too large")
        if fault is Fault.DOWN or (label not in EFFECTS and fault is not Fault.NONE):
            raise (EmbeddingUnavailable if label.startswith("embedder") else StoreUnavailable)("down")
        if fault is Fault.LATE:
            self.late.append((label, lambda: self._do(collection, label, done, args)))
            raise StoreUnavailable("timed out")
        if fault is Fault.HALF and label in DIVISIBLE:
            *first, items = args
            await self._do(collection, label, done, [*first, items[: len(items) // 2]])
            raise StoreUnavailable("gone halfway")
        result = await self._do(collection, label, done, args)
        if fault in {Fault.LOST, Fault.HALF}:
            raise StoreUnavailable("the acknowledgement is lost")
        return result

    async def _do(self, collection: str, label: str, done: Done, args: Sequence[Any]) -> Any:
        result = await done(*args)
        if label == "bus.publish":
            self._published.update(args[0])
        if label in EFFECTS:
            self._seen(collection, label, args, result)
        return result

    def _fits(self, label: str, args: Sequence[Any]) -> bool:
        """Return whether no topic would refuse the records.

        Each of them has no content and is small, or was published before.
        """
        return label == "bus.publish" and all(_small(record) or record in self._published for record in args[0])

    def land(self, number: int) -> str | None:
        """Let a timed-out call take effect; return its label."""
        if not self.late:
            return None
        label, do = self.late.pop(number % len(self.late))
        try:
            at_once(do())
        except CrossfadeError:
            return f"{label} (refused)"
        return label


class Port:
    """A port whose coroutines are points.

    A call that asks for nothing does not leave the process, so it is no point and no fault happens to it.
    """

    def __init__(self, inner: Any, name: str, trouble: Trouble, collection: str = "") -> None:
        self._inner, self._name, self._trouble, self._collection = inner, name, trouble, collection

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found
        label = f"{self._name}.{name}"

        async def call(*args: Any, **options: Any) -> Any:
            if args and not args[-1] and args[-1] is not None:
                return await found(*args, **options)
            fault = await Point(_reported(label, args))
            done = found if not options else lambda *given: found(*given, **options)
            return await self._trouble.call(self._collection, label, done, args, fault)

        self.__dict__[name] = call
        return call


def _small(record: Outgoing) -> bool:
    return record.topic == WRITTEN or record.value is None or b'"content":null' in record.value


def _reported(label: str, args: Sequence[Any]) -> str:
    if label != "bus.publish":
        return label
    records: Sequence[Outgoing] = args[0]
    return "publish " + " ".join(dict.fromkeys(record.topic.removeprefix("crossfade.") for record in records))


_VECTORS: dict[str, bytes] = {}


class SimEmbedder(HashingEmbedder):
    """An embedder with chunks of three words. Texts that contain `NO_VECTOR` have no usable vector."""

    def __init__(self) -> None:
        super().__init__(dimension=8, chunk_words=3)

    async def embed_documents(self, texts: Sequence[str], progress: Callable[[], None] = lambda: None) -> list[bytes]:
        if any(NO_VECTOR in text for text in texts):
            raise EmbeddingFailed("no usable vector")
        return [self.vector(text) for text in texts]

    def vector(self, text: str) -> bytes:
        """Return the vector of a text, computed once for all runs."""
        known = _VECTORS.get(text)
        if known is None:
            known = _VECTORS[text] = self._vector(text)
        return known
