"""The addresses that a task needs. An unknown address raises NotReady. Nothing is connected here."""

from __future__ import annotations

from connectors.errors import NotReady
from schemas.settings import Collection, Kafka


def brokers_of(kafka: Kafka) -> str:
    """Return the brokers' addresses. Raises NotReady if none are known."""
    if kafka.bootstrap is None:
        raise NotReady("No Kafka brokers are known.", "Set kafka.bootstrap, or start the local stack: crossfade up")
    return kafka.bootstrap


def connect_of(kafka: Kafka) -> str:
    """Return the address of Kafka Connect. Raises NotReady if none is known."""
    if kafka.connect is None:
        raise NotReady("No Kafka Connect is known.", "Set kafka.connect, or start the local stack: crossfade up")
    return kafka.connect


def dsn_of(name: str, collection: Collection) -> str:
    """Return the address of a collection's database. Raises NotReady if none is known."""
    if collection.dsn is None:
        raise NotReady(
            f"No database is known for the collection {name!r}.",
            f"Set collections.{name}.dsn, or start the local stack: crossfade up",
        )
    return collection.dsn
