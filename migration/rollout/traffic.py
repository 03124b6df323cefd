"""What questions showed of each side of each collection in its present phase: follows the decisions of the router."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

from connectors.errors import CrossfadeError
from connectors.kafka.offsets import end_offsets, offsets_at
from connectors.kafka.reader import read_again
from domain.rollout.traffic import Traffic
from migration.rollout.states import RolloutStates
from schemas.cloudevents import InvalidEvent, decode
from schemas.queries import Attempt, RouteDecided, ShadowCompared
from schemas.records import Received, TopicPartition
from schemas.settings import Collection
from topics.catalogue import COMPARED, DECIDED

TOPICS = (DECIDED, COMPARED)
_PAUSE_S = 1.0
log = logging.getLogger("crossfade.rollout")


class TrafficView:
    """The traffic of each collection since its present phase began. A change of phase begins it again."""

    def __init__(self, bootstrap: str, states: RolloutStates, collections: Mapping[str, Collection]) -> None:
        self._bootstrap, self._states, self._collections = bootstrap, states, collections
        self._traffic: dict[str, Traffic] = {}
        self._read: Mapping[TopicPartition, int] | None = None
        self._moved = asyncio.Event()

    def of(self, name: str) -> Traffic | None:
        """Return the traffic of a collection, None before its rollout has begun."""
        state = self._states.known.get(name)
        if state is None or name not in self._collections:
            return None
        limits, known = self._collections[name].gates, self._traffic.get(name)
        if known is None or known.since_ms != state.entered_at_ms:
            known = Traffic(state.entered_at_ms, limits.p95_ms, 1 - limits.confidence)
            self._traffic[name] = known
        return known

    async def follow(self) -> None:
        """Follow the decisions for ever, from the beginning of the oldest present phase on."""
        while True:
            try:
                await self._follow()
            except CrossfadeError as error:
                log.warning("the traffic of questions cannot be followed now: %s", error)
            except Exception:  # without evidence no gate passes, but documents and questions go on
                log.exception("the traffic of questions cannot be followed now")
            self._read = None
            await asyncio.sleep(_PAUSE_S)

    async def caught_up(self, limit_s: float) -> bool:
        """Wait until every decision that is there now was taken; say whether that was so in time."""
        with suppress(TimeoutError, CrossfadeError):
            async with asyncio.timeout(limit_s):
                ends = await self._ends()
                while self._read is None or any(self._read.get(at, 0) < end for at, end in ends.items()):
                    self._moved.clear()
                    await self._moved.wait()
                return True
        return False

    async def _follow(self) -> None:
        self._traffic.clear()
        oldest_ms = min((state.entered_at_ms for state in self._states.known.values()), default=0)
        starts = await self._ends()
        for topic in TOPICS:
            found = await offsets_at(self._bootstrap, topic, oldest_ms)
            starts |= {(topic, number): offset for number, offset in found.items()}
        async with read_again(self._bootstrap, starts) as chunks:
            async for chunk in chunks:
                for record in chunk.records:
                    self.take(record)
                self._read = chunk.following
                self._moved.set()

    async def _ends(self) -> dict[TopicPartition, int]:
        ends = await end_offsets(self._bootstrap, TOPICS)
        return {(topic, number): end for topic, found in ends.items() for number, end in found.items()}

    def take(self, record: Received) -> None:
        """Take a decision or a comparison, if it was made in the present phase of its collection."""
        try:
            if record.topic == COMPARED:
                self._take_comparison(record, decode(record, ShadowCompared)[0])
            else:
                self._take_decision(record, decode(record, RouteDecided)[0])
        except (InvalidEvent, ValueError) as error:
            log.warning("%s/%d/%d is passed over: %s", record.topic, record.partition, record.offset, error)

    def _present(self, record: Received, event: RouteDecided | ShadowCompared) -> Traffic | None:
        traffic, state = self.of(event.collection), self._states.known.get(event.collection)
        if traffic is None or state is None or event.phase != state.phase:
            return None
        return traffic if record.timestamp_ms >= traffic.since_ms else None

    def _take_comparison(self, record: Received, compared: ShadowCompared) -> None:
        if (traffic := self._present(record, compared)) is not None:
            traffic.comparisons.add(compared)
            traffic.add([compared.compared], record.timestamp_ms)

    def _take_decision(self, record: Received, decided: RouteDecided) -> None:
        if (traffic := self._present(record, decided)) is None:
            return
        traffic.add(decided.attempts, record.timestamp_ms)
        preferred = decided.alternatives[0].backend if decided.alternatives else None
        if (
            preferred == "qdrant"
            and not decided.quarantined
            and all(attempt.backend != "qdrant" for attempt in decided.attempts)
        ):
            # Its circuit was open, so it was not even tried.
            traffic.add([Attempt(backend="qdrant", outcome="skipped")], record.timestamp_ms)
        if decided.features.get("forced") is None and decided.attempts:
            traffic.first[decided.attempts[0].backend] += 1
