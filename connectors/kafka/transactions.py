"""Publishes records in transactions: all of a call or none. One publisher is active; the one that opens last fences it.

Source: Kafka's transactions (KIP-98). The brokers give each start of a `transactional.id` a higher epoch and refuse
what an older one publishes, so a conductor that lost its partition without noticing cannot write any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced

from connectors.errors import CrossfadeError, StoreUnavailable, TransientError
from connectors.kafka.errors import mapped
from schemas.records import Outgoing

# The brokers abort a transaction whose publisher died after this time; until then readers wait at its records.
_TRANSACTION_MS = 10_000
_FENCED = (ProducerFenced, InvalidProducerEpoch)


class TransactionalBus:
    """Publishes under one `transactional.id`. After any failure it must be opened again, which tells what took effect.

    Every call raises StoreUnavailable if the brokers do not answer within `timeout_s`, and TransientError if another
    publisher with the same id has opened since.
    """

    def __init__(self, bootstrap: str, transactional_id: str, *, timeout_s: float = 10.0) -> None:
        self._bootstrap, self._id, self._timeout_s = bootstrap, transactional_id, timeout_s
        self._producer: AIOKafkaProducer | None = None

    async def take_over(self) -> None:
        """Open, and fence every publisher that opened before. What they had not committed never takes effect."""
        await self.close()
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id="crossfade-transactions",
            acks="all",
            transactional_id=self._id,
            transaction_timeout_ms=_TRANSACTION_MS,
            request_timeout_ms=int(self._timeout_s * 1000),
        )
        self._producer = producer
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.start()
                # The epoch is raised with the first transaction, which is empty.
                await producer.begin_transaction()
                await producer.abort_transaction()
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            raise self._error(error) from error

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Publish all of the records, in order, or none."""
        producer = self._producer
        if producer is None:
            raise TransientError("the publisher is not open")
        try:
            async with asyncio.timeout(self._timeout_s), producer.transaction():
                sent = [
                    await producer.send(record.topic, record.value, key=record.key, headers=list(record.headers))
                    for record in records
                ]
                # A record that a broker refuses must fail here, or the others would be committed without it.
                await asyncio.gather(*sent)
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            raise self._error(error) from error

    async def close(self) -> None:
        """Close the connections. A transaction that is not committed is aborted by the brokers."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.stop()
        except (KafkaError, OSError, TimeoutError):
            await producer.client.close()

    def _error(self, error: BaseException) -> CrossfadeError:
        if isinstance(error, _FENCED):
            return TransientError(f"{self._id}: another publisher has taken over")
        if isinstance(error, TimeoutError):
            return StoreUnavailable(f"{self._bootstrap}: no answer within {self._timeout_s:g} s")
        return mapped(error, self._bootstrap)
