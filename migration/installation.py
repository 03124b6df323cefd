"""An installation as tasks and checks see it: its settings and its data folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from connectors.addresses import brokers_of, dsn_of
from schemas.settings import Settings


@dataclass(frozen=True, slots=True)
class Installation:
    """The settings, with the addresses of the local stack filled in, and the data folder."""

    settings: Settings
    home: Path

    @property
    def bootstrap(self) -> str:
        """The addresses of the brokers. Raises NotReady if none are known."""
        return brokers_of(self.settings.kafka)

    def dsn(self, collection: str) -> str:
        """Return the address of a collection's database. Raises NotReady if none is known."""
        return dsn_of(collection, self.settings.collections[collection])
