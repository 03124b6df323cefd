"""A client of the conductor: publishes a command, and waits for what it came to."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import TypeVar

from connectors.addresses import brokers_of
from connectors.errors import NotReady
from connectors.kafka.bus import AiokafkaBus
from connectors.kafka.offsets import end_offsets
from connectors.kafka.reader import read_topic
from migration.rollout.states import read_states
from schemas.cloudevents import InvalidEvent, decode, encode
from schemas.documents import Event
from schemas.queries import ShadowCompared
from schemas.records import Received
from schemas.rollout import PhaseChanged, RolloutCommanded, RolloutDecided
from schemas.settings import Kafka
from topics.catalogue import COMPARED, ROLLOUT_COMMANDS, ROLLOUT_DECIDED

SOURCE = "crossfade/operator"
_POLL_S = 0.2
E = TypeVar("E", bound=Event)
NO_ANSWER = "a worker with the role conductor decides about commands: crossfade worker"


def new_id() -> str:
    """Return an id for a command."""
    return str(uuid.uuid4())


async def state_of(kafka: Kafka, collection: str) -> PhaseChanged:
    """Return the state of a rollout. Raises NotReady if it has not begun, StoreUnavailable."""
    state = (await read_states(brokers_of(kafka))).known.get(collection)
    if state is None:
        raise NotReady(f"The rollout of {collection} has not begun.", NO_ANSWER)
    return state


async def moved_from(kafka: Kafka, before: PhaseChanged, timeout_s: float) -> PhaseChanged:
    """Wait until a rollout has another revision; return its state then. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while True:
            after = await state_of(kafka, before.collection)
            if after.revision != before.revision:
                return after
            await asyncio.sleep(_POLL_S)


async def command(kafka: Kafka, wanted: RolloutCommanded, timeout_s: float) -> RolloutDecided:
    """Publish a command and return the decision about it. Raises NotReady if no conductor decides in time."""
    bootstrap = brokers_of(kafka)
    ends = (await end_offsets(bootstrap, [ROLLOUT_DECIDED])).get(ROLLOUT_DECIDED)
    if ends is None:
        raise NotReady(f"The topic {ROLLOUT_DECIDED} is missing.", "Run: crossfade topics apply")
    record = encode(
        wanted,
        topic=ROLLOUT_COMMANDS,
        key=wanted.collection,
        event_id=wanted.id,
        source=SOURCE,
        time_ms=time.time_ns() // 1_000_000,
    )
    bus = AiokafkaBus(kafka)
    try:
        async with asyncio.timeout(timeout_s):
            await bus.publish([record])
            answers = read_topic(bootstrap, ROLLOUT_DECIDED, start=ends, until_end=False)
            async for decided in _events(answers, RolloutDecided):
                if decided.command.id == wanted.id:
                    return decided
    except TimeoutError:
        raise NotReady(f"No conductor decided within {timeout_s:g} s.", NO_ANSWER) from None
    finally:
        await bus.close()
    raise NotReady("The topic of decisions ended.", NO_ANSWER)


async def _events(records: AsyncIterator[Received], model: type[E]) -> AsyncIterator[E]:
    """Yield the events in the records. A record that is no such event is passed over."""
    async for record in records:
        try:
            yield decode(record, model)[0]
        except InvalidEvent:
            continue


async def comparisons(kafka: Kafka, collection: str) -> list[ShadowCompared]:
    """Return every comparison of a collection that is retained, those first whose answers differ most.

    One to which the other side did not answer comes last.
    """
    found: dict[str, ShadowCompared] = {}
    async for compared in _events(read_topic(brokers_of(kafka), COMPARED), ShadowCompared):
        if compared.collection == collection:
            found[compared.query_id] = compared
    unequal = {name: sum(missing.reason == "not_stored" for missing in each.missing) for name, each in found.items()}
    return sorted(
        found.values(),
        key=lambda each: (each.overlap is None, -unequal[each.query_id], each.overlap or 0.0, each.rbo or 0.0),
    )


async def decisions(kafka: Kafka, collection: str) -> list[RolloutDecided]:
    """Return every decision about a collection, oldest first. A command that was decided twice counts once."""
    found: dict[str, RolloutDecided] = {}
    async for decided in _events(read_topic(brokers_of(kafka), ROLLOUT_DECIDED), RolloutDecided):
        if decided.command.collection == collection:
            found.setdefault(decided.command.id, decided)
    return list(found.values())
