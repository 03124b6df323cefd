"""Debezium's configuration of captured tables, and the topics that a connector writes. Pure functions, no I/O."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Literal
from urllib.parse import unquote, urlsplit

from topics.captures import SCHEMA_HISTORY

CONNECTOR_CLASSES: Mapping[str, str] = {
    "postgres": "io.debezium.connector.postgresql.PostgresConnector",
    "mariadb": "io.debezium.connector.mariadb.MariaDbConnector",
}
SNAPSHOT_MODE = "snapshot.mode"
# Debezium creates its slot with this option, which PostgreSQL has from version 17 on.
SLOT_FAILOVER = "slot.failover"
TABLE_LIST = "table.include.list"
EXACT = "(?-i)"
SKIP_UNKNOWN_DDL = "schema.history.internal.skip.unparseable.ddl"
SnapshotMode = Literal["initial", "always", "initial_only", "no_data", "when_needed"]

# Bounds on what a connector holds in memory: rows of a document table may be 1 MiB each.
_QUEUE_BYTES = 32 * 1024 * 1024
_SNAPSHOT_FETCH_ROWS = 128
# Messages of Java and of the drivers. None is about a lost slot or a purged binary log, which reconnecting cannot fix.
_BROKEN_CONNECTION = (
    "(?is)(Connection reset|Connection refused|Connection timed out|Broken pipe|Socket closed|"
    "Failed to read next byte|unexpected end of stream|.*Communications link failure).*"
)
_BEAT = "SELECT pg_logical_emit_message(false, 'crossfade', '')"
# Largest request of the schema history's own producer: the Connect worker's `producer.` settings do not apply to it.
_HISTORY_REQUEST_BYTES = 16 * 1024 * 1024


def postgres_connector(
    name: str,
    dsn: str,
    topic_prefix: str,
    tables: Sequence[str],
    *,
    slot: str,
    publication: str,
    columns: Mapping[str, str] | None = None,
    snapshot: SnapshotMode = "initial",
    heartbeat_ms: int = 1_000,
) -> dict[str, str]:
    """Return the configuration of a connector that captures PostgreSQL tables (`schema.table`) from `dsn`.

    Its topics, one for each table and one for its heartbeats, must exist before: Connect retries writes to a missing
    topic for ever, without a failure. `slot` and `publication` belong to this connector alone. Debezium creates a
    missing publication with these tables.
    """
    parts = urlsplit(dsn)
    return {
        "connector.class": CONNECTOR_CLASSES["postgres"],
        "database.hostname": parts.hostname or "localhost",
        "database.port": str(parts.port or 5432),
        "database.user": unquote(parts.username or ""),
        "database.password": unquote(parts.password or ""),
        "database.dbname": unquote(parts.path.lstrip("/")),
        "plugin.name": "pgoutput",
        "slot.name": slot,
        "publication.name": publication,
        "publication.autocreate.mode": "filtered",
        # Otherwise changes of a partitioned table are published under the names of its partitions, which nobody reads.
        "publish.via.partition.root": "true",
        # If no answer comes for this many seconds, the connection ends and the task starts again. Otherwise the task
        # waits for hours on a connection that a firewall has dropped. The creation of a slot that waits longer for old
        # transactions is also tried again.
        "driver.socketTimeout": "90",
        TABLE_LIST: ",".join(exactly(table) for table in tables),
        # Writes to other tables do not reach a slot's reader. It would confirm nothing, and the server would keep its
        # log for ever. Each heartbeat therefore writes a message, which the connector reads.
        "heartbeat.action.query": _BEAT,
        # Publish no message, not even an application's: nobody has created a topic for it.
        "message.prefix.exclude.list": ".*",
        **_common(name, topic_prefix, snapshot, heartbeat_ms),
        **(columns or {}),
    }


def mariadb_connector(
    name: str,
    dsn: str,
    topic_prefix: str,
    tables: Sequence[str],
    *,
    bootstrap_servers: str,
    columns: Mapping[str, str] | None = None,
    snapshot: SnapshotMode = "initial",
    heartbeat_ms: int = 1_000,
) -> dict[str, str]:
    """Return the configuration of a connector that captures MariaDB tables (`database.table`) from `dsn`.

    Its schema history is kept in a topic of the broker at `bootstrap_servers`. The connector creates this topic itself.
    """
    parts, listed = urlsplit(dsn), ",".join(exactly(table) for table in tables)
    return {
        "connector.class": CONNECTOR_CLASSES["mariadb"],
        "database.hostname": parts.hostname or "localhost",
        "database.port": str(parts.port or 3306),
        "database.user": unquote(parts.username or ""),
        "database.password": unquote(parts.password or ""),
        "database.ssl.mode": "disable",
        # How often the reader of the binary log checks that its connection is alive. With Debezium's default of one
        # minute, the outage after a killed server would last that long.
        "connect.keep.alive.interval.ms": "5000",
        # A replica's id. No other reader of the same binary log may have the same one.
        "database.server.id": str(100_000 + zlib.crc32(name.encode()) % 4_000_000_000),
        "database.include.list": ",".join(sorted({exactly(table.partition(".")[0]) for table in tables})),
        TABLE_LIST: listed,
        "include.schema.changes": "false",
        # Otherwise an unsigned number above 2^63 arrives as a negative one. With the converters' decimal format it is a
        # number in JSON.
        "bigint.unsigned.handling.mode": "precise",
        # Otherwise the driver turns a year into a date, and year 0 ends the connector.
        "driver.yearIsDateType": "false",
        # Otherwise years below 100 are taken for years of two digits.
        "enable.time.adjuster": "false",
        "schema.history.internal.kafka.bootstrap.servers": bootstrap_servers,
        "schema.history.internal.kafka.topic": topic_prefix + SCHEMA_HISTORY,
        "schema.history.internal.store.only.captured.tables.ddl": "true",
        "schema.history.internal.store.only.captured.databases.ddl": "true",
        "schema.history.internal.producer.max.request.size": str(_HISTORY_REQUEST_BYTES),
        "schema.history.internal.producer.linger.ms": "0",
        **_common(name, topic_prefix, snapshot, heartbeat_ms),
        **(columns or {}),
    }


def _common(name: str, topic_prefix: str, snapshot: SnapshotMode, heartbeat_ms: int) -> dict[str, str]:
    return {
        "name": name,
        "tasks.max": "1",
        "topic.prefix": topic_prefix,
        SNAPSHOT_MODE: snapshot,
        "snapshot.fetch.size": str(_SNAPSHOT_FETCH_ROWS),
        "key.converter": "org.apache.kafka.connect.json.JsonConverter",
        "key.converter.schemas.enable": "false",
        "key.converter.replace.null.with.default": "false",
        "key.converter.decimal.format": "NUMERIC",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
        # Otherwise NULL arrives as the column's default.
        "value.converter.replace.null.with.default": "false",
        "value.converter.decimal.format": "NUMERIC",
        "decimal.handling.mode": "string",
        # As text, MariaDB's times beyond a day would end the connector, and PostgreSQL's 24:00 would become midnight.
        "time.precision.mode": "microseconds",
        "binary.handling.mode": "base64",
        "tombstones.on.delete": "true",
        # Otherwise truncations are skipped, and the deleted documents would silently stay in Qdrant.
        "skipped.operations": "none",
        "poll.interval.ms": "50",  # at 10 an idle connector uses a tenth of a core
        "heartbeat.interval.ms": str(heartbeat_ms),
        "max.queue.size.in.bytes": str(_QUEUE_BYTES),
        # After a connection error the task is restarted every 2 s for 100 s; then it fails visibly.
        "errors.max.retries": "50",
        "retriable.restart.connector.wait.ms": "2000",
        # Errors that Debezium treats as fatal for the task although only the connection ended.
        "custom.retriable.exception": _BROKEN_CONNECTION,
        "producer.override.linger.ms": "0",
    }


def exactly(name: str) -> str:
    """Return the pattern of a name. Debezium reads lists as regular expressions, in which a dot and `$` are special.

    By default it ignores case: a table `Articles` next to `articles` would be captured too, without a topic for it.
    """
    return EXACT + escaped(name)


def escaped(name: str) -> str:
    """Return the pattern of a name, without regard to case."""
    return name.replace("\\", "\\\\").replace(".", "\\.").replace("$", "\\$")
