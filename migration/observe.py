"""Reads what is known of collections from databases, brokers and Kafka Connect, each on its own. Changes nothing.

A part that does not answer is reported with its error. The answers of the other parts are returned nevertheless.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from connectors.addresses import brokers_of, connect_of, dsn_of
from connectors.errors import CrossfadeError, Misconfigured, NotReady, TaskFailed
from connectors.kafka.connect import ConnectClient
from connectors.kafka.offsets import KafkaOffsets
from connectors.sql.connector import LegacyConnector
from connectors.sql.databases import open_legacy
from domain.quarantine import Quarantine
from migration.capture.positions import ReplicationPosition, replication_position
from migration.lag import RoleLag, pipeline, role_lags
from migration.rollout.states import RolloutStates, read_states, recorded_state
from migration.state import CollectionState
from migration.status import Backfill, Progress, Proof, backfill_of, proof_of
from schemas.rollout import PhaseChanged
from schemas.settings import Settings
from schemas.tasks import BACKFILL, PROOF
from topics.captures import Capture

PART_S = 10.0
_OWN_TABLES = "crossfade_"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Database:
    """What the database of a collection reports."""

    quarantine: Quarantine | None
    capture: Capture | None
    backfill: Backfill | None
    proof: Proof | None
    rollout: PhaseChanged | None


async def answered(work: Awaitable[T], limit_s: float = PART_S) -> tuple[T | None, str | None]:
    """Return the answer of a part, or the reason why there is none."""
    try:
        async with asyncio.timeout(limit_s):
            return await work, None
    except TimeoutError:
        return None, f"no answer within {limit_s:g} s"
    except TaskFailed as error:
        return None, f"{error.message} {error.hint}".strip()
    except Misconfigured as error:
        if _OWN_TABLES in str(error):
            return None, "crossfade's own tables are not there: no worker has run for it yet"
        return None, str(error)
    except (CrossfadeError, OSError, ValueError) as error:
        return None, str(error) or type(error).__name__


class Databases:
    """The databases of the collections. Each is opened when first asked, and opened again after a failure."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: dict[str, LegacyConnector] = {}

    async def ask(self, name: str, question: Callable[[LegacyConnector], Coroutine[Any, Any, T]]) -> T:
        """Ask the database of a collection. Raises NotReady if it has no address, and otherwise as `open_legacy`."""
        if name not in self._opened:
            collection = self._settings.collections[name]
            self._opened[name] = await open_legacy(name, collection, dsn_of(name, collection))
        try:
            return await question(self._opened[name])
        except CrossfadeError:
            await self._opened.pop(name).close()
            raise

    async def close(self) -> None:
        """Close the connections."""
        while self._opened:
            _, legacy = self._opened.popitem()
            await legacy.close()


async def stops(settings: Settings) -> list[Progress]:
    """Return for every configured collection whether it is quarantined or not captured now, or what does not answer."""
    observer = Observer(settings)
    try:
        return await observer.look(list(settings.collections), lag=False)
    finally:
        await observer.close()


async def current_state(settings: Settings, name: str) -> PhaseChanged | None:
    """Return the state of a collection's rollout, from the topic or else from its database; None if it has not begun.

    Raises StoreUnavailable if the brokers do not answer.
    """
    states = await read_states(brokers_of(settings.kafka))
    if (state := states.known.get(name)) is not None:
        return state
    databases = Databases(settings)
    try:
        found, _ = await answered(
            databases.ask(name, lambda legacy: recorded_state(CollectionState(legacy.ledger, name)))
        )
    finally:
        await databases.close()
    return found


class Observer:
    """Reads the progress of collections on demand, over connections that it keeps. Callers may also use `databases`."""

    def __init__(self, settings: Settings, now_s: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._now_s = now_s
        self.databases = Databases(settings)
        self._offsets: dict[str, KafkaOffsets] = {}
        self._connect: ConnectClient | None = None

    async def look(self, names: Sequence[str], *, lag: bool = True) -> list[Progress]:
        """Return the current progress of the collections. Every part has ten seconds to answer.

        Without `lag`, the brokers are not asked.
        """
        asked = [answered(self.databases.ask(name, self._reading(name))) for name in names]
        databases = dict(zip(names, await asyncio.gather(*asked), strict=True))
        captures = {name: found.capture if found else None for name, (found, _) in databases.items()}
        asked_lags = [answered(self._lags(name, capture, lag)) for name, capture in captures.items()]
        lags, places, (states, _) = await asyncio.gather(
            asyncio.gather(*asked_lags), self._places(captures), answered(self._states(lag))
        )
        states = states or RolloutStates()
        found = []
        for (name, (database, no_database)), (own_lags, no_lags) in zip(databases.items(), lags, strict=True):
            if database is not None:
                states.take(database.rollout)
            phase = states.phase(name) or self._settings.collections[name].phase
            progress = Progress(name, phase, states.known.get(name))
            if database is not None:
                parts_ = (database.quarantine, database.backfill, database.proof)
                progress = replace(progress, quarantine=parts_[0], backfill=parts_[1], proof=parts_[2])
            place, no_place = places[name]
            # The names under which the collection is captured are recorded in its database.
            no_place = None if no_database is not None and captures[name] is None else no_place
            missing = {"database": no_database, "kafka": no_lags, "capture": no_place}
            found.append(
                replace(
                    progress,
                    lags=own_lags,
                    capture=place,
                    unanswered={part: text for part, text in missing.items() if text is not None},
                )
            )
        return found

    async def close(self) -> None:
        """Close the connections."""
        await self.databases.close()
        while self._offsets:
            _, offsets = self._offsets.popitem()
            await offsets.close()
        if self._connect is not None:
            await self._connect.close()

    def _reading(self, name: str) -> Callable[[LegacyConnector], Coroutine[Any, Any, _Database]]:
        async def read(legacy: LegacyConnector) -> _Database:
            state = CollectionState(legacy.ledger, name)
            quarantine = await state.quarantine()
            capture = await state.capture(self._settings.kafka, self._settings.collections[name])
            backfill, proof = await legacy.tasks.read(BACKFILL), await legacy.tasks.read(PROOF)
            now_ms = round(self._now_s() * 1000)
            rollout = await recorded_state(state)
            return _Database(quarantine, capture, backfill_of(backfill, now_ms), proof_of(proof, now_ms), rollout)

        return read

    async def _lags(self, name: str, capture: Capture | None, asked: bool) -> tuple[RoleLag, ...] | None:
        """Ask for one collection: what a role parked of it is behind the role's own offset, and not done."""
        if not asked:
            return None
        if name not in self._offsets:
            self._offsets[name] = KafkaOffsets(brokers_of(self._settings.kafka), collection=name)
        lags = await role_lags(self._offsets[name], pipeline([capture.topic] if capture else []), self._now_s)
        if not lags:
            raise NotReady("There are no topics yet: no worker has run.")
        return tuple(lags)

    async def _states(self, asked: bool) -> RolloutStates:
        return await read_states(brokers_of(self._settings.kafka)) if asked else RolloutStates()

    async def _places(
        self, captures: dict[str, Capture | None]
    ) -> dict[str, tuple[ReplicationPosition | None, str | None]]:
        """Ask for each connector once, however many collections it captures."""
        asked: dict[str, tuple[str, Capture | None]] = {}
        for name, capture in captures.items():
            asked.setdefault(capture.connector if capture else "", (name, capture))
        answers = await asyncio.gather(*(answered(self._place(name, capture)) for name, capture in asked.values()))
        found = dict(zip(asked, answers, strict=True))
        return {name: found[capture.connector if capture else ""] for name, capture in captures.items()}

    async def _place(self, name: str, capture: Capture | None) -> ReplicationPosition:
        collection = self._settings.collections[name]
        if self._connect is None:
            self._connect = ConnectClient(connect_of(self._settings.kafka))
        dsn = dsn_of(name, collection)
        if capture is None:
            raise NotReady("It was never captured: no worker has run for it yet.")
        return await replication_position(self._connect, collection.connector, dsn, capture)
