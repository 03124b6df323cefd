"""Reads the captured changes among dead letters, as capture would now: what their tables are is asked once."""

from __future__ import annotations

from functools import partial

from agents.assembly import capture_of
from connectors.debezium import decode_capture
from connectors.sql_connector import LegacyConnector
from domain.legacy import TableDescription
from operations.migration.looking import Databases, answered
from operations.superseding import record_of
from schemas.cloudevents import InvalidEvent
from schemas.dead_letters import DeadLetter
from schemas.documents import DocumentChanged
from schemas.settings import Settings
from topics.captures import Capture


async def _table(settings: Settings, name: str, legacy: LegacyConnector) -> tuple[TableDescription, Capture | None]:
    capture = await capture_of(legacy.ledger, settings.kafka, name, settings.collections[name])
    return legacy.table.description, capture


class CapturedLetters:
    """Called with a letter, returns its change: None for one of another topic, or that cannot be read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._databases = Databases(settings)
        self._known: dict[str, tuple[str, TableDescription, int]] | None = None

    async def __call__(self, letter: DeadLetter) -> DocumentChanged | None:
        """Return the change of a letter."""
        if self._known is None:
            self._known = await self._tables()
        table = self._known.get(letter.original.topic)
        if table is None:
            return None
        name, description, epoch = table
        try:
            return decode_capture(record_of(letter), name, self._settings.collections[name], description, epoch)
        except InvalidEvent:
            return None

    async def close(self) -> None:
        """Give the connections back."""
        await self._databases.close()

    async def _tables(self) -> dict[str, tuple[str, TableDescription, int]]:
        found: dict[str, tuple[str, TableDescription, int]] = {}
        for name in self._settings.collections:
            table, _ = await answered(self._databases.ask(name, partial(_table, self._settings, name)))
            if table is None:
                continue
            description, capture = table
            if capture is not None:
                found[capture.topic] = (name, description, capture.epoch)
        return found
