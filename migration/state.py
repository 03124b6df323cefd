"""The state of a collection as kept in its database: source epoch, capture, model, quarantine, log partitions.

The names under which the state is kept must not change: workers of other releases read them.
"""

from __future__ import annotations

from dataclasses import dataclass

from connectors.ports import Ledger
from domain.quarantine import Quarantine, Reason
from schemas.settings import Collection, Kafka
from topics.captures import Capture, earlier_capture
from topics.provisioning import captured_table

_LOG_PARTITIONS = "documents.log.partitions"
_SOURCE_EPOCH = "source_epoch"
_CAPTURE = "capture"
_QUARANTINE = "halted"
_MODEL = "model"
_ROLLOUT = "rollout"


@dataclass(frozen=True, slots=True)
class CollectionState:
    """The kept state of one collection. Every call raises StoreUnavailable if the database does not answer."""

    ledger: Ledger
    name: str

    async def reason(self) -> Reason | None:
        """Return why the collection is quarantined, None if it is active."""
        number = await self.ledger.get_meta(f"{_QUARANTINE}.{self.name}")
        return Reason(number) if number else None

    async def quarantine(self) -> Quarantine | None:
        """Return the quarantine of the collection, None if it is active."""
        reason = await self.reason()
        return Quarantine(self.name, reason) if reason else None

    async def set_reason(self, reason: Reason | None) -> None:
        """Quarantine the collection; with None, make it active again."""
        await self.ledger.set_meta(f"{_QUARANTINE}.{self.name}", reason or 0)

    async def source_epoch(self) -> int | None:
        """Return the source epoch in which the collection is captured, None if it never was."""
        return await self.ledger.get_meta(f"{_SOURCE_EPOCH}.{self.name}")

    async def claim_source_epoch(self, epoch: int) -> int:
        """Begin a source epoch unless there is one; return the epoch that is recorded."""
        return await self.ledger.claim(f"{_SOURCE_EPOCH}.{self.name}", epoch)

    async def capture(self, kafka: Kafka, collection: Collection) -> Capture | None:
        """Return the names under which the collection is captured, None if it never was."""
        epoch = await self.source_epoch()
        if epoch is None:
            return None
        recorded = await self.ledger.identity(self._capture_key(epoch))
        if recorded:
            return Capture.of(recorded)
        return earlier_capture(kafka, collection, captured_table(collection), epoch)

    async def claim_capture(self, epoch: int, capture: Capture) -> None:
        """Record the names of a source epoch unless it already has names."""
        await self.ledger.claim_identity(self._capture_key(epoch), capture.recorded())

    async def has_capture(self, epoch: int) -> bool:
        """Say whether names are recorded for a source epoch."""
        return await self.ledger.identity(self._capture_key(epoch)) is not None

    async def record_capture(self, capture: Capture) -> None:
        """Record the names under which the collection is captured from now on."""
        # In this order: a reader that finds the epoch also finds its names.
        await self.ledger.set_identity(self._capture_key(capture.epoch), capture.recorded())
        await self.ledger.set_meta(f"{_SOURCE_EPOCH}.{self.name}", capture.epoch)

    def _capture_key(self, epoch: int) -> str:
        return f"{_CAPTURE}.{self.name}.e{epoch}"

    async def model(self) -> int | None:
        """Return the CRC-32 of the key of the model that made the collection's points, None if none is known."""
        return await self.ledger.get_meta(f"{_MODEL}.{self.name}")

    async def claim_model(self, fingerprint: int) -> int:
        """Record a model unless there is one; return the model that is recorded."""
        return await self.ledger.claim(f"{_MODEL}.{self.name}", fingerprint)

    async def set_model(self, fingerprint: int) -> None:
        """Record another model."""
        await self.ledger.set_meta(f"{_MODEL}.{self.name}", fingerprint)

    async def rollout(self) -> str | None:
        """Return the copy of the state of the collection's rollout as JSON, None if there is none."""
        return await self.ledger.identity(f"{_ROLLOUT}.{self.name}")

    async def set_rollout(self, state: str) -> None:
        """Record a copy of the state of the collection's rollout."""
        await self.ledger.set_identity(f"{_ROLLOUT}.{self.name}", state)


async def log_partitions(ledger: Ledger) -> int | None:
    """Return the number of log partitions that the ledgers of a database were written with, None for a new database."""
    return await ledger.get_meta(_LOG_PARTITIONS)


async def set_log_partitions(ledger: Ledger, partitions: int) -> None:
    """Record the number of partitions of the log."""
    await ledger.set_meta(_LOG_PARTITIONS, partitions)
