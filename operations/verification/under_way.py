"""When everything that was under way has passed: out of the database's log, through the topics, into the stores."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from agents.assembly import HALTED, capture_of
from connectors.kafka.lag import KafkaLag, pipeline
from connectors.ports import Ledger
from domain.halts import Reason
from operations.capture_places import captured
from operations.capturing import connect_client
from operations.errors import CommandError
from schemas.settings import Settings


class UnderWay:
    """The barrier of one collection, as an asynchronous context manager. Connects when it is asked first."""

    def __init__(self, settings: Settings, name: str, ledger: Ledger) -> None:
        self._settings, self._name, self._ledger = settings, name, ledger
        self._lag: KafkaLag | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lag is not None:
            await self._lag.close()

    async def passed(self, limit_s: float) -> bool:
        """Say whether all that is committed in the database and published now went through every role in time.

        Of a stopped collection nothing is under way, unless it is being captured again. Raises StoreUnavailable.
        """
        ends = time.monotonic() + limit_s
        if await self._ledger.recorded(f"{HALTED}.{self._name}") not in {None, 0, Reason.RECAPTURING}:
            return True
        kafka, collection = self._settings.kafka, self._settings.collections[self._name]
        capture = await capture_of(self._ledger, kafka, self._name, collection)
        if capture is None:  # nobody has captured it yet
            return False
        try:
            async with connect_client(kafka) as client:
                if not await captured(client, collection.connector, collection.dsn or "", capture, limit_s):
                    return False
        except CommandError:  # Kafka Connect does not answer, so nobody knows what is captured
            return False
        if self._lag is None:
            self._lag = KafkaLag(kafka.bootstrap or "", pipeline([capture.topic]), collection=self._name)
        return await self._lag.passed(max(1.0, ends - time.monotonic()), [capture.topic])
