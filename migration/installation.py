"""An installation as tasks and checks see it: its settings, and its data folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from connectors.addresses import brokers_of, dsn_of
from schemas.settings import Settings


@dataclass(frozen=True, slots=True)
class Installation:
    """Settings with the local stack's addresses filled in, and the data folder."""

    settings: Settings
    home: Path

    @property
    def bootstrap(self) -> str:
        """The brokers' addresses. Raises NotReady where none are known."""
        return brokers_of(self.settings.kafka)

    def dsn(self, collection: str) -> str:
        """Return the address of a collection's database. Raises NotReady where none is known."""
        return dsn_of(collection, self.settings.collections[collection])
