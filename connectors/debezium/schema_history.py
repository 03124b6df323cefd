"""The columns of MariaDB's tables as Debezium's schema history records them. Nothing is decided here.

Debezium keeps a model of each table by parsing statements, and reads rows by the model's column order. If that differs
from the table's, values appear under the wrong column names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from connectors.addresses import brokers_of
from connectors.errors import Misconfigured
from connectors.kafka.reader import read_topic
from schemas.settings import Kafka

_OF_TABLES = frozenset({"CREATE", "ALTER"})


async def known_columns(kafka: Kafka, topic: str) -> dict[str, list[str]]:
    """Return the columns of each table (`database.table`) in the order at a schema history's end, in lower case.

    Raises StoreUnavailable.
    """
    found: dict[str, list[str]] = {}
    try:
        async for record in read_topic(brokers_of(kafka), topic):
            found |= columns_in(record.value)
    except Misconfigured:  # there is no history yet
        return {}
    return found


def columns_in(value: bytes | None) -> dict[str, list[str]]:
    """Return the columns of the tables that a record of a schema history changes; nothing for any other record."""
    try:
        changes: Iterable[Mapping[str, Any]] = orjson.loads(value or b"{}").get("tableChanges") or ()
        return {
            str(change["id"]).replace('"', ""): _names(change["table"]["columns"])
            for change in changes
            if change["type"] in _OF_TABLES
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _names(columns: Iterable[Mapping[str, Any]]) -> list[str]:
    ordered = sorted(columns, key=lambda column: int(column["position"]))
    return [str(column["name"]).lower() for column in ordered]
