"""Debezium's configuration of captured tables, and the topics that a connector writes. Values in, values out."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Literal
from urllib.parse import unquote, urlsplit

SNAPSHOT_MODE = "snapshot.mode"
# Debezium makes its slot with it; PostgreSQL knows it from 17 on.
SLOT_FAILOVER = "slot.failover"
TABLE_LIST = "table.include.list"
EXACT = "(?-i)"
SKIP_UNKNOWN_DDL = "schema.history.internal.skip.unparseable.ddl"
SnapshotMode = Literal["initial", "always", "initial_only", "no_data", "when_needed"]

# Bounds on what a connector holds in memory: rows of a document table may be 1 MiB each.
_QUEUE_BYTES = 32 * 1024 * 1024
_SNAPSHOT_FETCH_ROWS = 128
# Java's and the drivers' messages. Nothing of a lost slot or a purged binary log, which no new connection mends.
_BROKEN_CONNECTION = (
    "(?is)(Connection reset|Connection refused|Connection timed out|Broken pipe|Socket closed|"
    "Failed to read next byte|unexpected end of stream|.*Communications link failure).*"
)
_BEAT = "SELECT pg_logical_emit_message(false, 'crossfade', '')"
_HISTORY_TOPIC_SUFFIX = "schema-history"
# Largest request of the schema history's own producer: the worker's `producer.` settings do not reach it.
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
    """Give the configuration of a connector that captures PostgreSQL tables (`schema.table`) from `dsn`.

    It writes the topics of `capture_topics`, which must be there before. `slot` and `publication` belong to this
    connector alone; the publication is made with these tables when it is missing.
    """
    parts = urlsplit(dsn)
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": parts.hostname or "localhost",
        "database.port": str(parts.port or 5432),
        "database.user": unquote(parts.username or ""),
        "database.password": unquote(parts.password or ""),
        "database.dbname": unquote(parts.path.lstrip("/")),
        "plugin.name": "pgoutput",
        "slot.name": slot,
        "publication.name": publication,
        "publication.autocreate.mode": "filtered",
        # Otherwise changes of a partitioned table come under the names of its partitions, which nobody reads.
        "publish.via.partition.root": "true",
        # An answer that does not come for so many seconds ends the connection, and the task begins again. Otherwise one
        # that a firewall forgot is waited for for hours. A slot that waits longer for old transactions is asked for
        # again, too.
        "driver.socketTimeout": "90",
        TABLE_LIST: ",".join(exactly(table) for table in tables),
        # What is written to other tables says nothing to a slot's reader, so that it would confirm nothing and the
        # server keep its log for ever: each heartbeat writes a message, and reads it.
        "heartbeat.action.query": _BEAT,
        # No message gets out, also none of an application's: its topic would be one that nobody made.
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
    """Give the configuration of a connector that captures MariaDB tables (`database.table`) from `dsn`.

    Its schema history is kept in a topic of the broker at `bootstrap_servers`, which the connector makes itself.
    """
    parts, listed = urlsplit(dsn), ",".join(exactly(table) for table in tables)
    return {
        "connector.class": "io.debezium.connector.mariadb.MariaDbConnector",
        "database.hostname": parts.hostname or "localhost",
        "database.port": str(parts.port or 3306),
        "database.user": unquote(parts.username or ""),
        "database.password": unquote(parts.password or ""),
        "database.ssl.mode": "disable",
        # How often the reader of the binary log looks whether its connection still lives; Debezium's own minute would
        # be the whole outage after a server that was killed.
        "connect.keep.alive.interval.ms": "5000",
        # A replica's id, which no other reader of the same binary log may have.
        "database.server.id": str(100_000 + zlib.crc32(name.encode()) % 4_000_000_000),
        "database.include.list": ",".join(sorted({exactly(table.partition(".")[0]) for table in tables})),
        TABLE_LIST: listed,
        "include.schema.changes": "false",
        # Otherwise an unsigned number above 2^63 comes as a negative one. With the converters' decimal format it is a
        # number in JSON.
        "bigint.unsigned.handling.mode": "precise",
        # As a date, which the driver makes of a year otherwise, year 0 ends the connector.
        "driver.yearIsDateType": "false",
        # Otherwise years below 100 come as years of two digits.
        "enable.time.adjuster": "false",
        "schema.history.internal.kafka.bootstrap.servers": bootstrap_servers,
        "schema.history.internal.kafka.topic": schema_history_topic(topic_prefix),
        "schema.history.internal.store.only.captured.tables.ddl": "true",
        "schema.history.internal.store.only.captured.databases.ddl": "true",
        "schema.history.internal.producer.max.request.size": str(_HISTORY_REQUEST_BYTES),
        "schema.history.internal.producer.linger.ms": "0",
        **_common(name, topic_prefix, snapshot, heartbeat_ms),
        **(columns or {}),
    }


def capture_topics(topic_prefix: str, tables: Sequence[str]) -> tuple[str, ...]:
    """Give the topics that a connector writes: one a table, and its heartbeats. They must be there before it starts.

    Connect retries for ever, without a failure, to write to a topic that is not there.
    """
    return (*(f"{topic_prefix}.{table}" for table in tables), f"__debezium-heartbeat.{topic_prefix}")


def schema_history_topic(topic_prefix: str) -> str:
    """Give the topic in which a MariaDB connector keeps the table definitions over time."""
    return f"{topic_prefix}.{_HISTORY_TOPIC_SUFFIX}"


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
        # Otherwise NULL comes as the column's default.
        "value.converter.replace.null.with.default": "false",
        "value.converter.decimal.format": "NUMERIC",
        "decimal.handling.mode": "string",
        # As text, MariaDB's times beyond a day end the connector, and PostgreSQL's 24:00 is midnight.
        "time.precision.mode": "microseconds",
        "binary.handling.mode": "base64",
        "tombstones.on.delete": "true",
        # Truncations are skipped otherwise, and the documents that are gone would stay in Qdrant without a word.
        "skipped.operations": "none",
        "poll.interval.ms": "50",  # at 10 an idle connector takes a tenth of a core
        "heartbeat.interval.ms": str(heartbeat_ms),
        "max.queue.size.in.bytes": str(_QUEUE_BYTES),
        # After an error of the connection the task is started again every 2 s for 100 s; then it fails visibly.
        "errors.max.retries": "50",
        "retriable.restart.connector.wait.ms": "2000",
        # What Debezium takes for the end of the task though the connection alone ended.
        "custom.retriable.exception": _BROKEN_CONNECTION,
        "producer.override.linger.ms": "0",
    }


def exactly(name: str) -> str:
    """Give the pattern of a name: Debezium reads lists as regular expressions, a dot and a dollar sign among them.

    It compares without regard to case: a table `Articles` beside `articles` would be captured too, into no topic.
    """
    return EXACT + escaped(name)


def escaped(name: str) -> str:
    """Give the pattern of a name in whatever case."""
    return name.replace("\\", "\\\\").replace(".", "\\.").replace("$", "\\$")
