"""The conductor's journal: the states of all rollouts and the commands that were decided, in two topics.

A decision and the state that it brings about are published together or not at all. After every failure, and when
another conductor took over, the journal is read again, so a command that arrives twice is decided once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

from connectors.errors import TransientError
from migration.rollout.states import RolloutStates
from schemas.cloudevents import InvalidEvent, decode
from schemas.records import Outgoing, Received
from schemas.rollout import PhaseChanged, RolloutDecided
from topics.catalogue import ROLLOUT_DECIDED, ROLLOUT_PHASES

TRANSACTIONAL_ID = "crossfade-conductor"


class ExclusiveBus(Protocol):
    """Publishes all records of a call or none, and only as long as nobody else has taken over."""

    async def take_over(self) -> None:
        """Become the only publisher. Raises StoreUnavailable."""
        ...

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Publish. Raises TransientError if another publisher has taken over, and StoreUnavailable."""
        ...


class Journal:
    """What was decided. Every call raises TransientError or StoreUnavailable, and may then be repeated."""

    def __init__(self, bus: ExclusiveBus, read: Callable[[str], AsyncIterator[Received]]) -> None:
        self._bus, self._read = bus, read
        self._states: RolloutStates | None = None
        self._decided: set[str] = set()
        self._lock = asyncio.Lock()

    async def state(self, collection: str) -> PhaseChanged | None:
        """Return the state of a collection's rollout, None if it has not begun."""
        return (await self._opened()).known.get(collection)

    async def is_decided(self, command: str) -> bool:
        """Say whether a command was decided already."""
        await self._opened()
        return command in self._decided

    async def record(self, records: Sequence[Outgoing], *, decided: str | None, states: Sequence[PhaseChanged]) -> None:
        """Publish the records of a decision about a command, and of the states that it brings about.

        Raises TransientError if a state is not newer than the one that the journal has by now.
        """
        async with self._lock:
            known = await self._read_once()
            for state in states:
                had = known.known.get(state.collection)
                if had is not None and had.revision >= state.revision:
                    raise TransientError(f"{state.collection} has moved on to revision {had.revision}")
            try:
                await self._bus.publish(records)
            except BaseException:
                self._states = None  # whether it took effect is known when the topics were read again
                raise
            for state in states:
                known.take(state)
            if decided is not None:
                self._decided.add(decided)

    async def check(self) -> None:
        """Read again if the topic does not have the states that this journal knows: it was lost."""
        known = await self._opened()
        found = RolloutStates()
        async for record in self._read(ROLLOUT_PHASES):
            found.take_record(record)
        for name, state in known.known.items():
            had = found.known.get(name)
            if had is None or had.revision < state.revision:
                self._states = None

    async def states(self) -> Mapping[str, PhaseChanged]:
        """Return the states of all rollouts that have begun."""
        return (await self._opened()).known

    async def _opened(self) -> RolloutStates:
        async with self._lock:
            return await self._read_once()

    async def _read_once(self) -> RolloutStates:
        if self._states is None:
            # In this order: nobody can publish between the reading and our own first record.
            await self._bus.take_over()
            states, decided = RolloutStates(), set()
            async for record in self._read(ROLLOUT_PHASES):
                states.take_record(record)
            async for record in self._read(ROLLOUT_DECIDED):
                try:
                    decided.add(decode(record, RolloutDecided)[0].command.id)
                except InvalidEvent:
                    continue
            self._states, self._decided = states, decided
        return self._states
