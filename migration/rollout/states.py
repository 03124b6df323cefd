"""The current phases of all collections: read from their topic, and followed for as long as a worker runs.

The database of a collection has a copy of its state, for the case that the topic is lost: the configuration only says
where a collection begins, and would take its traffic back to there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from connectors.addresses import brokers_of
from connectors.errors import CrossfadeError, Misconfigured
from connectors.kafka.admin import partition_counts
from connectors.kafka.reader import read_topic
from migration.collection import CollectionPorts
from migration.state import CollectionState
from schemas.cloudevents import InvalidEvent, decode
from schemas.records import Received
from schemas.rollout import Phase, PhaseChanged
from schemas.settings import Collection, Kafka
from topics.catalogue import ROLLOUT_PHASES

_PAUSE_S = 1.0
log = logging.getLogger("crossfade.rollout")


@dataclass(slots=True)
class RolloutStates:
    """The newest state of each collection's rollout that this process knows."""

    known: dict[str, PhaseChanged] = field(default_factory=dict)

    def take(self, state: PhaseChanged | None) -> bool:
        """Take a state if it is newer than the known one; say whether it was."""
        if state is None:
            return False
        had = self.known.get(state.collection)
        if had is not None and had.revision >= state.revision:
            return False
        self.known[state.collection] = state
        return True

    def take_record(self, record: Received) -> bool:
        """Take the state in a record of the topic. A record that is no such event is passed over."""
        if record.value is None:
            return False
        try:
            return self.take(decode(record, PhaseChanged)[0])
        except InvalidEvent as error:
            log.error("%s/%d/%d is no state: %s", record.topic, record.partition, record.offset, error)
            return False

    def phase(self, name: str) -> Phase | None:
        """Return the phase of a collection, None if its rollout has not begun."""
        state = self.known.get(name)
        return state.phase if state is not None else None


async def read_states(bootstrap: str) -> RolloutStates:
    """Return the current states; none if their topic does not exist yet. Raises StoreUnavailable."""
    states = RolloutStates()
    if ROLLOUT_PHASES in await partition_counts(bootstrap, [ROLLOUT_PHASES]):
        async for record in read_topic(bootstrap, ROLLOUT_PHASES):
            states.take_record(record)
    return states


async def follow_states(
    bootstrap: str, states: RolloutStates, collections: MutableMapping[str, CollectionPorts]
) -> None:
    """Follow the topic for ever, and give each collection its phase as soon as it changes."""
    reconciling = asyncio.create_task(_reconcile(states, collections))
    try:
        await _follow(bootstrap, states, collections)
    finally:
        reconciling.cancel()


async def _follow(bootstrap: str, states: RolloutStates, collections: MutableMapping[str, CollectionPorts]) -> None:
    while True:
        try:
            async for record in read_topic(bootstrap, ROLLOUT_PHASES, until_end=False):
                if states.take_record(record):
                    _apply(states, collections)
        except CrossfadeError as error:
            log.warning("the phases cannot be followed now: %s", error)
        except Exception:  # whatever it is: a worker that stops following would keep its phase for ever
            log.exception("the phases cannot be followed now")
        await asyncio.sleep(_PAUSE_S)


async def _reconcile(states: RolloutStates, collections: MutableMapping[str, CollectionPorts]) -> None:
    """Give collections that were opened while their phase changed the phase that is known. Never returns."""
    while True:
        _apply(states, collections)
        await asyncio.sleep(_PAUSE_S)


def _apply(states: RolloutStates, collections: MutableMapping[str, CollectionPorts]) -> None:
    for name, state in states.known.items():
        ports = collections.get(name)
        if ports is None or ports.moved_to == state.phase:
            continue
        collections[name] = replace(ports, moved_to=state.phase)
        why = f": {state.reason}" if state.reason else ""
        log.warning(
            "collection %s is in phase %s now (revision %d, by %s%s)", name, state.phase, state.revision, state.by, why
        )


async def current_phase(kafka: Kafka, kept: CollectionState, collection: Collection) -> Phase:
    """Return the phase of a collection: that of its rollout, or else the configured one. Raises StoreUnavailable."""
    states = await read_states(brokers_of(kafka))
    states.take(await recorded_state(kept))
    return states.phase(kept.name) or collection.phase


async def recorded_state(kept: CollectionState) -> PhaseChanged | None:
    """Return the copy of a state in the collection's database, None if there is none.

    Raises StoreUnavailable, and Misconfigured if the copy cannot be read: that is not the same as none.
    """
    text = await kept.rollout()
    if text is None:
        return None
    try:
        return PhaseChanged.model_validate_json(text)
    except ValidationError:
        raise Misconfigured(f"the recorded rollout of {kept.name} cannot be read (rollout.{kept.name})") from None


def check_phases(collections: Mapping[str, Collection], states: RolloutStates) -> None:
    """Raise Misconfigured if the configured phase of a collection was edited after its rollout had begun."""
    for name, collection in collections.items():
        if (message := edited_phase(name, collection, states)) is not None:
            raise Misconfigured(message)


def edited_phase(name: str, collection: Collection, states: RolloutStates) -> str | None:
    """Return what is wrong with the configured phase of a collection, None if nothing is."""
    state = states.known.get(name)
    if state is None or collection.phase == state.began_as:
        return None
    return (
        f"collections.{name}.phase = {collection.phase!r} says where a new collection begins, and this one began as "
        f"{state.began_as}: set it back to that. Its phase is {state.phase} now, and is changed by: crossfade migrate "
        f"promote {name}, crossfade migrate rollback {name}"
    )
