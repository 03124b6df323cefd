"""What the databases know of dead letters: the captured changes among them, read as capture would now, and epochs."""

from __future__ import annotations

from functools import partial

from connectors.debezium.changes import decode_capture
from connectors.errors import NotReady
from connectors.sql.connector import LegacyConnector
from domain.legacy import TableDescription
from migration.dead_letters.superseded import record_of
from migration.epochs import Epochs, epochs_of
from migration.observe import Databases, answered
from migration.state import CollectionState
from schemas.cloudevents import InvalidEvent
from schemas.dead_letters import DeadLetter
from schemas.documents import DocumentChanged
from schemas.settings import Settings
from topics.captures import Capture


async def _table(settings: Settings, name: str, legacy: LegacyConnector) -> tuple[TableDescription, Capture | None]:
    capture = await CollectionState(legacy.ledger, name).capture(settings.kafka, settings.collections[name])
    return legacy.table.description, capture


async def _epochs(legacy: LegacyConnector) -> Epochs:
    return await epochs_of([legacy.ledger])


class CapturedLetters:
    """Reads the captured change of a letter. None for a letter of another topic, or one that cannot be read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._databases = Databases(settings)
        self._known: dict[str, tuple[str, TableDescription, int]] | None = None

    async def __call__(self, letter: DeadLetter) -> DocumentChanged | None:
        """Return the captured change of a letter."""
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

    async def epochs(self) -> Epochs:
        """Return the epochs of the log and of the submitted topic. Raises NotReady if no database answers."""
        found, errors = [], []
        for name in self._settings.collections:
            epochs, error = await answered(self._databases.ask(name, _epochs))
            if epochs is not None:
                found.append(epochs)
            errors.append(f"{name}: {error}")
        if not found:
            why = "; ".join(errors) or "there is no collection"
            raise NotReady("Without a database nobody knows whether anything newer was accepted.", why)
        return Epochs(max(one.version for one in found), max(one.producer for one in found))

    async def close(self) -> None:
        """Close the connections."""
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
