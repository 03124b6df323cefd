"""When everything that was under way has passed: out of the database's log, through the topics, into the stores."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from connectors.addresses import brokers_of
from connectors.errors import TaskFailed
from connectors.kafka.lag import KafkaLag, pipeline
from connectors.ports import Ledger
from domain.quarantine import Halt, Reason
from migration.capture.connectors import connect_client
from migration.capture.positions import captured
from migration.collection import HALTED, capture_of
from schemas.settings import Settings
from topics.captures import Capture


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

        What was published alone where captured changes are not taken from a stopped collection, and nothing where no
        role takes a record. Raises StoreUnavailable.
        """
        ends = time.monotonic() + limit_s
        number = await self._ledger.recorded(f"{HALTED}.{self._name}")
        halt = Halt(self._name, Reason(number)) if number else None
        if halt is not None and halt.reason is Reason.TOPIC_REPLACED:
            return True
        topics: list[str] = []
        if halt is None or halt.captures:
            capture = await self._captured(limit_s)
            if capture is None:
                return False
            topics = [capture.topic]
        if self._lag is None:
            self._lag = KafkaLag(brokers_of(self._settings.kafka), pipeline(topics), collection=self._name)
        return await self._lag.passed(max(1.0, ends - time.monotonic()), topics)

    async def _captured(self, limit_s: float) -> Capture | None:
        """Wait until all that is committed now is in the topic of capture; return None where that takes too long."""
        kafka, collection = self._settings.kafka, self._settings.collections[self._name]
        capture = await capture_of(self._ledger, kafka, self._name, collection)
        if capture is None:  # nobody has captured it yet
            return None
        try:
            async with connect_client(kafka) as client:
                if await captured(client, collection.connector, collection.dsn or "", capture, limit_s):
                    return capture
        except TaskFailed:  # Kafka Connect does not answer, so nobody knows what is captured
            pass
        return None
