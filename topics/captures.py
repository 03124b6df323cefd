"""The names under which a collection's changes travel: connector, replication slot and topics. Values only, no I/O.

Names are derived once from the identity of the server and the database, and recorded. Addresses, roles and settings may
change later, and a connector under another name would start from the beginning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote, urlsplit
from zlib import crc32

import orjson

from schemas.settings import Collection, Kafka
from topics.catalogue import capture_topic, dead_letter_topic

SCHEMA_HISTORY = ".schema-history"
HEARTBEAT_PREFIX = "__debezium-heartbeat."
_NO_TOPIC_CHARACTER = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class Capture:
    """The names of a collection in one source epoch. `table` is `schema.table`; in MariaDB, `database.table`."""

    epoch: int
    prefix: str
    connector: str
    table: str

    @property
    def topic(self) -> str:
        """Debezium's topic for the table."""
        return capture_topic(self.prefix, _NO_TOPIC_CHARACTER.sub("_", self.table))

    @property
    def dead_letters(self) -> str:
        """The dead-letter topic for records that the capture role could not process."""
        return dead_letter_topic(self.topic)

    @property
    def heartbeats(self) -> str:
        """The topic of the connector's heartbeats."""
        return f"{HEARTBEAT_PREFIX}{self.prefix}"

    @property
    def schema_history(self) -> str:
        """The topic in which a MariaDB connector keeps table definitions."""
        return f"{self.prefix}{SCHEMA_HISTORY}"

    @property
    def slot(self) -> str:
        """The name of the replication slot and of the publication, in PostgreSQL."""
        return self.connector.replace("-", "_")

    def recorded(self) -> str:
        """Return the text to record."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def of(cls, recorded: str) -> Capture:
        """Return the capture that `recorded` encoded."""
        return cls(**orjson.loads(recorded))


@dataclass(frozen=True, slots=True)
class Origin:
    """The values that the `source` block of a collection's captured changes must have."""

    name: str
    database: str
    schema: str | None
    table: str

    def difference(self, source: Mapping[str, Any]) -> str | None:
        """Return how a change's `source` block differs from this origin, or None."""
        wanted = {"name": self.name, "db": self.database, "schema": self.schema, "table": self.table}
        other = [name for name, value in wanted.items() if (value is not None and source.get(name) != value)]
        if not other:
            return None
        text = ", ".join(f"{name} {str(source.get(name))[:100]!r} instead of {wanted[name]!r}" for name in other)
        return f"its source says {text}"


def origin_of(capture: Capture, collection: Collection) -> Origin:
    """Return the origin of a collection's changes."""
    space, _, table = capture.table.partition(".")
    if collection.connector == "mariadb":
        return Origin(capture.prefix, space, None, table)
    return Origin(capture.prefix, database_of(collection.dsn or ""), space, table)


def database_of(dsn: str) -> str:
    """Return the database that an address names; PostgreSQL's default is the database named like the role."""
    parts = urlsplit(dsn)
    return unquote(parts.path.lstrip("/")) or unquote(parts.username or "")


def capture_base(kafka: Kafka, database: str) -> str:
    """Return the part of a capture's names that is unique to one database; `database` is its identity."""
    return blake2b(f"{kafka.capture_prefix}\n{database}".encode(), digest_size=5).hexdigest()


def new_capture(kafka: Kafka, kind: str, base: str, epoch: int, table: str) -> Capture:
    """Return the names of a capture that begins now."""
    suffix = "" if epoch == 1 else f"e{epoch}"
    prefix = ".".join(part for part in (kafka.capture_prefix, base, suffix) if part)
    connector = "-".join(part for part in ("crossfade", kind, base, suffix) if part)
    return Capture(epoch, prefix, connector, table)


def earlier_capture(kafka: Kafka, collection: Collection, table: str, epoch: int) -> Capture:
    """Return the names of a capture that began before names were recorded, derived from the database's address."""
    parts = urlsplit(collection.dsn or "")
    place = crc32(f"{parts.hostname}:{parts.port}{parts.path}".encode())
    suffix = "" if epoch == 1 else f"e{epoch}"
    prefix = ".".join(part for part in (kafka.capture_prefix, suffix) if part)
    connector = "-".join(part for part in ("crossfade", collection.connector, f"{place:08x}", suffix) if part)
    return Capture(epoch, prefix, connector, table)


def epoch_of_topic(kafka: Kafka, base: str, topic: str) -> int:
    """Return the source epoch that a topic of a database's captures belongs to, 0 for any other topic."""
    found = re.match(rf"{re.escape(kafka.capture_prefix)}\.{base}\.(?:e([0-9]+)\.)?", topic)
    return int(found[1] or 1) if found else 0
