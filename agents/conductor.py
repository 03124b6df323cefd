"""Conductor: rollout.commands → rollout.phases and rollout.decided. What a command comes to is decided in `domain`.

Only one conductor is active, since the commands have one partition. One that lost it cannot publish any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from agents.batch import Batch, Failure, Failures, Message
from connectors.errors import CrossfadeError, Misconfigured, StoreUnavailable
from connectors.failpoints import passing
from domain.rollout.commands import begun, decide, gates_to_judge
from migration.collection import CollectionPorts, Collections
from migration.context import HandlerContext
from migration.rollout.journal import Journal
from migration.rollout.states import recorded_state
from migration.state import CollectionState
from schemas.cloudevents import InvalidEvent, decode
from schemas.documents import Event
from schemas.records import Outgoing
from schemas.rollout import GateResult, Phase, PhaseChanged, RolloutCommanded
from schemas.settings import Guards
from topics.catalogue import ROLLOUT_DECIDED, ROLLOUT_PHASES

SOURCE = "crossfade/conductor"
# The next command does not wait longer for a database.
_COPY_S = 2.0
# The database keeps at most 1,000 characters, and JSON may need six for one.
_BY_CHARACTERS = 40
_COMMAND_CHARACTERS = 64
Judge = Callable[[PhaseChanged, tuple[Phase, ...]], Awaitable[tuple[GateResult, ...]]]
"""Returns the verdicts of the gates of some phases, in a state."""
log = logging.getLogger("crossfade.rollout")


@dataclass(frozen=True, slots=True)
class ConductorParts:
    """What a conductor needs besides the collections."""

    journal: Journal
    judge: Judge


async def conduct(
    batch: Batch, *, collections: Collections, journal: Journal, judge: Judge, ctx: HandlerContext
) -> Failures:
    """Decide each command of a batch, in order; return the ones that cannot be read as failures."""
    failures: Failures = []
    for message in batch:
        try:
            command, _ = decode(message.record, RolloutCommanded)
            if not await journal.is_decided(command.id):
                await _conduct(command, message, collections.get(command.collection), journal, judge, ctx)
        except InvalidEvent as error:
            failures.append(Failure(message, error))
    return failures


async def _conduct(
    command: RolloutCommanded,
    message: Message,
    ports: CollectionPorts | None,
    journal: Journal,
    judge: Judge,
    ctx: HandlerContext,
) -> None:
    """Decide a command. A collection that is not open here can go back, but no gate of it can be judged."""
    state = await journal.state(command.collection)
    if state is None and ports is not None:
        await begin([ports], journal, ctx)
        state = await journal.state(ports.name)
        if state is None:
            raise StoreUnavailable(f"the database of {ports.name} does not say whether its rollout has begun")
    if state is None:
        raise InvalidEvent(f"collection {command.collection!r} is not open here, and its rollout has not begun")
    phases = () if _expired(command, message, ctx) else gates_to_judge(command, state, ctx.clock())
    gates: tuple[GateResult, ...] = ()
    if phases and ports is not None:
        gates = await judge(state, phases)
    elif phases:
        text = "the collection is not open in the worker that conducts: its database is away, or not configured"
        gates = (GateResult(gate="capture", verdict="inconclusive", message=text),)
    expired = _expired(command, message, ctx)  # judging takes its time, and the operator may be gone by now
    cooldown_ms = round(1000 * (ports.settings.guards if ports is not None else Guards()).cooldown_s)
    decision, changed = decide(command, state, gates, ctx.clock(), expired=expired, cooldown_ms=cooldown_ms)
    records = [_record(decision, ROLLOUT_DECIDED, command.collection, f"{command.id}/decided", ctx, message)]
    if changed is not None:
        records.insert(0, _phase_record(changed, ctx, message))
    passing("conductor.before_record")
    await journal.record(records, decided=command.id, states=[changed] if changed else [])
    log.warning(
        "%s of %s by %s: %s, %s", command.action, command.collection, command.by, decision.outcome, decision.message
    )
    if changed is not None and ports is not None:
        await keep_copy(ports, changed)


def _expired(command: RolloutCommanded, message: Message, ctx: HandlerContext) -> bool:
    """Say whether nobody waits for a command any more. A guard's does not expire: its revision protects it."""
    return not command.guard and ctx.clock() > message.record.timestamp_ms + command.valid_ms


async def begin(collections: Sequence[CollectionPorts], journal: Journal, ctx: HandlerContext) -> set[str]:
    """Begin the rollouts that have not begun, each as configured, and restore the ones that were lost.

    Returns the collections that are ready for commands: without a state and without their database, one is not. A
    database with a newer state than the topic means that the topic was lost or restored to the past. Raises
    TransientError if a state changed meanwhile, and StoreUnavailable.
    """
    states = await journal.states()
    found = await asyncio.gather(*(_first(ports, states.get(ports.name), ctx) for ports in collections))
    firsts = [first for first in found if first is not None and first != states.get(first.collection)]
    if firsts:
        await journal.record([_phase_record(first, ctx) for first in firsts], decided=None, states=firsts)
    ready = [(ports, first) for ports, first in zip(collections, found, strict=True) if first is not None]
    await asyncio.gather(*(keep_copy(ports, first) for ports, first in ready))
    return {ports.name for ports, _ in ready}


async def _first(ports: CollectionPorts, state: PhaseChanged | None, ctx: HandlerContext) -> PhaseChanged | None:
    """Return the state that the journal should have, None if that is not known."""
    try:
        kept = await recorded_state(CollectionState(ports.ledger, ports.name))
    except CrossfadeError as error:
        log.warning("the recorded rollout of %s cannot be read now: %s", ports.name, error)
        return state  # without one, the topic may have been lost, and only the database can tell
    if state is not None and (kept is None or kept.revision <= state.revision):
        return state
    return kept or begun(ports.name, ports.settings.phase, ctx.clock())


async def keep_copy(ports: CollectionPorts, state: PhaseChanged) -> None:
    """Keep a copy of the state in the collection's database. A rollback does not wait for a database that is away."""
    short = state.model_copy(
        update={"reason": "", "by": state.by[:_BY_CHARACTERS], "command": state.command[:_COMMAND_CHARACTERS]}
    )
    try:
        async with asyncio.timeout(_COPY_S):
            kept = CollectionState(ports.ledger, ports.name)
            with suppress(Misconfigured):  # a copy that cannot be read is replaced
                had = await recorded_state(kept)
                if had is not None and had.revision >= state.revision:
                    return
            await kept.set_rollout(short.model_dump_json())
    except (CrossfadeError, TimeoutError) as error:
        log.warning("the rollout of %s could not be recorded in its database: %s", ports.name, error)


def _phase_record(state: PhaseChanged, ctx: HandlerContext, message: Message | None = None) -> Outgoing:
    event_id = f"{state.collection}/{state.revision}/{state.command or 'begun'}"
    return _record(state, ROLLOUT_PHASES, state.collection, event_id, ctx, message)


def _record(
    event: Event, topic: str, key: str, event_id: str, ctx: HandlerContext, message: Message | None
) -> Outgoing:
    trace = message.trace if message is not None else None
    return ctx.emit(event, topic, key, event_id=event_id, source=SOURCE, trace=trace)
