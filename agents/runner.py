"""Runs a handler over a batch so that no message is lost: retries, isolation of single messages, dead letters.

If a store does not answer, the runner waits without a limit, and the role is not ready meanwhile. A role that gives up
retries any other transient error up to a limit. What still fails goes to the dead-letter topic, with confirmation, and
the rest continues.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import InitVar, dataclass, field
from functools import partial

import stamina
from pydantic import ValidationError

from agents.batch import Batch, Failure, Failures, Message
from connectors.errors import CrossfadeError, Misconfigured, Refused, StoreUnavailable, TransientError
from connectors.ports import Bus
from migration.context import HandlerContext
from schemas.cloudevents import InvalidEvent, explain
from schemas.dead_letters import SUFFIX, dead_letter
from schemas.records import Outgoing, size_of
from topics.provisioning import record_limit

log = logging.getLogger("crossfade.agents")
# The sizes to which a dead letter is cut if its topic refuses a size that it should take.
_SMALLER_BYTES = (512 * 1024, 64 * 1024)

RETRY_AFTER_MAX_S = 60.0

Handler = Callable[[Batch], Awaitable[Failures]]
Lost = Callable[[Message, Exception], list[Outgoing]]
OnDeadLetter = Callable[[Failure], Awaitable[None]]


async def _nothing_to_note(_: Failure) -> None:
    return None


def _again(error: Exception, waited_for: tuple[type[CrossfadeError], ...] = (TransientError,)) -> bool | float:
    """Return whether to retry, or after how many seconds if the store says so, at most a minute."""
    if isinstance(error, StoreUnavailable) and error.retry_after_s > 0:
        return min(error.retry_after_s, RETRY_AFTER_MAX_S)
    return isinstance(error, waited_for)


def _without_values(error: Exception) -> Exception:
    """Return an error that logs and dead letters may show: pydantic's errors contain a document's values."""
    return InvalidEvent(explain(error)) if isinstance(error, ValidationError) else error


@dataclass(slots=True)
class RoleHealth:
    """The health of a role, as its endpoint shows it: when it last finished something, and what it is waiting for.

    `busy_since_s` is when its batch began, or last made progress. `ended_by` is the error that ended its agent.
    """

    role: str
    finished_at_s: float = field(default_factory=time.monotonic)
    busy_since_s: float | None = None
    waiting_for: str | None = None
    ended_by: str | None = None
    handled: int = 0
    dead_letters: int = 0

    def progressed(self) -> None:
        """Note that a part of the batch is done."""
        self.busy_since_s = time.monotonic()


@dataclass(frozen=True, slots=True)
class Retry:
    """The bounds of retries: attempts at a transient error, and the longest wait between two, in seconds."""

    attempts: int = 8
    wait_max_s: float = 10.0
    wait_initial_s: float = 0.1


@dataclass(slots=True, eq=False)
class Runner:
    """One role: its handler, the records that it publishes for a lost message, and its bounds.

    `gives_up`: a message that fails with a transient error up to the limit becomes a dead letter. A role that does not
    give up waits instead, as for a store that does not answer. It cannot undo the part of a change that it made, and
    later changes would lack a change that it left out. `waits_for_rights`: if a store refuses the role itself (a
    password, a right, a missing table), the role waits as for a store that does not answer. `on_dead_letter` is called
    when the dead letter of a failure is published; called or not, the message is not lost. `kept` is the health to keep
    up to date, for a handler that also reports its progress.
    """

    role: str
    handler: Handler
    lost: Lost
    bus: Bus
    ctx: HandlerContext
    retry: Retry = Retry()
    on_dead_letter: OnDeadLetter = _nothing_to_note
    gives_up: bool = True
    waits_for_rights: bool = False
    kept: InitVar[RoleHealth | None] = None
    health: RoleHealth = field(init=False)

    def __post_init__(self, kept: RoleHealth | None) -> None:
        self.health = kept or RoleHealth(self.role)

    async def run(self, batch: Batch) -> None:
        """Handle a batch to its end. Raises only on cancellation, or if the broker refuses a dead letter for good."""
        started = time.monotonic()
        self.health.busy_since_s = started
        try:
            await self._handle(batch)
        finally:
            self.health.busy_since_s = None
        self.health.finished_at_s = time.monotonic()
        self.health.handled += len(batch)
        self.health.waiting_for = None
        self.ctx.telemetry.handled(batch[0].record.topic, self.role, len(batch), time.monotonic() - started)

    async def _handle(self, batch: Batch) -> None:
        try:
            failures = await self._try(lambda: self.handler(batch))
        except asyncio.CancelledError:
            raise
        except Exception as raised:
            error = _without_values(raised)
            if not isinstance(error, CrossfadeError | InvalidEvent):
                log.exception("%s failed", self.role)
            if len(batch) > 1:
                for message in batch:
                    await self._handle([message])
                return
            failures = [Failure(batch[0], error)]
        for failure in failures:
            await self._give_up(failure)

    async def _try(self, call: Callable[[], Awaitable[Failures]]) -> Failures:
        waited_for = (TransientError, Misconfigured) if self.waits_for_rights else (TransientError,)
        while True:
            try:
                async for attempt in stamina.retry_context(
                    on=partial(_again, waited_for=waited_for),
                    attempts=self.retry.attempts,
                    timeout=None,
                    wait_initial=self.retry.wait_initial_s,
                    wait_max=self.retry.wait_max_s,
                ):
                    with attempt:
                        if attempt.num > 1:
                            self.ctx.telemetry.retried(self.role)
                        try:
                            failures = await call()
                        except waited_for as error:
                            self.health.waiting_for = f"{type(error).__name__}: {error}"
                            raise
                        # Progress: the next step of this batch is timed from here, and waits for nothing yet.
                        self.health.waiting_for = None
                        self.health.busy_since_s = time.monotonic()
                        return failures
            except waited_for as error:
                if self.gives_up and not isinstance(error, StoreUnavailable | Misconfigured):
                    raise
                log.warning("%s waits: %s", self.role, error)

    async def _give_up(self, failure: Failure) -> None:
        record, error = failure.message.record, failure.error
        log.warning("%s: dead letter of %s/%d/%d: %s", self.role, record.topic, record.partition, record.offset, error)
        answers = self._answers(failure)
        attempts, epoch = self.retry.attempts, self.ctx.epoch_of(record.topic)
        for limit in (record_limit(record.topic + SUFFIX, self.ctx.kafka), *_SMALLER_BYTES):
            letter = dead_letter(record, stage=self.role, error=error, attempt=attempts, limit=limit, epoch=epoch)
            try:
                await self._publish([letter, *answers])
                break
            except Refused as refused:  # the topic takes less than it was created with
                if limit == _SMALLER_BYTES[-1]:
                    raise
                log.warning("%s: the dead letter is cut: %s", self.role, refused)
        await self._note_dead_letter(failure)
        self.health.dead_letters += 1
        self.ctx.telemetry.dead_lettered(record.topic)

    def _answers(self, failure: Failure) -> list[Outgoing]:
        """Return the answers for a lost message; an answer that cannot be given does not hold back the dead letter."""
        try:
            answers = self.lost(failure.message, failure.error)
        except Exception:
            log.exception("%s: no answer can be given", self.role)
            return []
        fitting = [one for one in answers if size_of(one) <= record_limit(one.topic, self.ctx.kafka)]
        if len(fitting) < len(answers):
            log.warning("%s: an answer is too large to be given", self.role)
        return fitting

    async def _publish(self, records: Sequence[Outgoing]) -> None:
        async def publish() -> Failures:
            await self.bus.publish(records)
            return []

        await self._try(publish)

    async def _note_dead_letter(self, failure: Failure) -> None:
        async def on_dead_letter() -> Failures:
            await self.on_dead_letter(failure)
            return []

        try:
            await self._try(on_dead_letter)
        except CrossfadeError as error:
            log.warning("%s: a second delivery would publish this dead letter again: %s", self.role, error)
