"""Kafka Connect over its REST interface, and Debezium's configuration of captured tables. Topics are made elsewhere."""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

import httpx

from operations.errors import CommandError

SNAPSHOT_MODE = "snapshot.mode"
# Debezium makes its slot with it; PostgreSQL knows it from 17 on.
SLOT_FAILOVER = "slot.failover"
TABLE_LIST = "table.include.list"
SKIP_UNKNOWN_DDL = "schema.history.internal.skip.unparseable.ddl"
SnapshotMode = Literal["initial", "always", "initial_only", "no_data", "when_needed"]
ConnectorState = Literal["UNASSIGNED", "RUNNING", "PAUSED", "STOPPED", "FAILED", "RESTARTING", "MISSING"]

_REQUEST_BOUND_S = 15.0
# While its worker group changes, Connect answers 409, or 500 with these words; its default `rebalance.timeout.ms` is a
# minute. While it starts, every path is 404, in HTML and not its own JSON.
_REBALANCE = "a rebalance is expected"
_BUSY_BOUND_S = 90.0
_POLL_S = 0.1
# Bounds on what a connector holds in memory: rows of a document table may be 1 MiB each.
_QUEUE_BYTES = 32 * 1024 * 1024
_SNAPSHOT_FETCH_ROWS = 128
# Java's and the drivers' messages. Nothing of a lost slot or a purged binary log, which no new connection mends.
_BROKEN_CONNECTION = (
    "(?is)(Connection reset|Connection refused|Connection timed out|Broken pipe|Socket closed|"
    "Failed to read next byte|unexpected end of stream|.*Communications link failure).*"
)
# How Debezium names the statement that its parser does not know.
_UNKNOWN_DDL = re.compile(r"DDL statement couldn't be parsed.*? with the statement '(.*?)'\n", re.DOTALL)
_BEAT = "SELECT pg_logical_emit_message(false, 'crossfade', '')"
_HISTORY_TOPIC_SUFFIX = "schema-history"
# Largest request of the schema history's own producer: the worker's `producer.` settings do not reach it.
_HISTORY_REQUEST_BYTES = 16 * 1024 * 1024

# How Debezium and the databases say that a slot or a binary log is gone; seen with 3.5, PostgreSQL 18, MariaDB 10.11.
_LOST_SIGNS = (
    "no longer available on the server",
    "have been purged",
    "could not find first log file name",
    "replication slot does not exist",
    "can no longer get changes from replication slot",
)


_IS_TOO_LARGE = "RecordTooLargeException"
_TOO_LARGE = (
    "raise kafka.max_record_bytes and run `crossfade topics apply`, or make the row smaller and run"
    " `crossfade recapture`"
)


class ConnectUnreachable(CommandError):
    """Nobody answers at Kafka Connect's address."""


@dataclass(frozen=True, slots=True)
class ConnectorStatus:
    """State of a connector and of its tasks; `failure` is what the first stack trace says is wrong, if any.

    `statement` is the one that a MariaDB connector does not understand, where that ended it.
    """

    name: str
    state: ConnectorState
    tasks: tuple[ConnectorState, ...]
    failure: str | None
    statement: str | None = None

    @property
    def running(self) -> bool:
        """The connector and at least one task run, and no task does anything else."""
        return self.state == "RUNNING" and bool(self.tasks) and all(task == "RUNNING" for task in self.tasks)

    @property
    def trouble(self) -> str:
        """Why it does not run, as a sentence without its full stop."""
        if self.failed:
            return str(self.failure) + (f"; {_TOO_LARGE}" if _IS_TOO_LARGE in (self.failure or "") else "")
        return f"{self.name} is {self.state.lower()}"

    @property
    def lost(self) -> bool:
        """It failed because the database's log no longer has the place from which it would go on."""
        return self.failed and any(sign in (self.failure or "").lower() for sign in _LOST_SIGNS)

    @property
    def failed(self) -> bool:
        """The connector or a task ended with an error and will not go on by itself."""
        return self.state == "FAILED" or "FAILED" in self.tasks


class ConnectClient:
    """A client of one Connect cluster, at `url` (http). Every call raises CommandError when it is refused."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.AsyncClient(base_url=url, timeout=_REQUEST_BOUND_S, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def names(self) -> tuple[str, ...]:
        """Give the names of all connectors."""
        answer = await self._request("GET", "/connectors")
        return tuple(sorted(_body(answer)))

    async def put_config(self, name: str, config: dict[str, str]) -> None:
        """Create the connector or change its configuration; the same configuration again changes nothing."""
        if await self.config(name) == {**config, "name": name}:
            return
        await self._request("PUT", f"/connectors/{name}/config", json=config)

    async def config(self, name: str) -> dict[str, str]:
        """Give the configuration of a connector, nothing when there is none."""
        answer = await self._request("GET", f"/connectors/{name}/config", accept=(404,))
        return dict(_body(answer)) if answer.status_code == httpx.codes.OK else {}

    async def status(self, name: str) -> ConnectorStatus:
        """Tell the state of a connector; `MISSING` when there is none of that name."""
        answer = await self._request("GET", f"/connectors/{name}/status", accept=(404,))
        if answer.status_code == httpx.codes.NOT_FOUND:
            # States are read from a topic of their own, at times later than what connectors there are.
            return ConnectorStatus(name, "UNASSIGNED" if await self.config(name) else "MISSING", (), None)
        body = _body(answer)
        traces = [trace for part in (body["connector"], *body["tasks"]) if (trace := part.get("trace"))]
        unknown = _UNKNOWN_DDL.search(traces[0]) if traces else None
        return ConnectorStatus(
            name=name,
            state=body["connector"]["state"],
            tasks=tuple(task["state"] for task in body["tasks"]),
            failure=_first_cause(traces[0]) if traces else None,
            statement=unknown[1] if unknown else None,
        )

    async def wait_running(self, name: str, timeout_s: float) -> ConnectorStatus:
        """Wait until the connector and its tasks run. Raises CommandError when one fails, or at the bound."""
        deadline = time.monotonic() + timeout_s
        while True:
            status = await self.status(name)
            if status.running:
                return status
            if status.failed:
                raise CommandError(
                    f"The connector {name} failed: {status.trouble}", "Fix the cause; a worker starts it again."
                )
            if time.monotonic() >= deadline:
                raise CommandError(
                    f"The connector {name} does not run after {timeout_s:.0f} s: {status.state}, tasks {status.tasks}."
                )
            await asyncio.sleep(_POLL_S)

    async def offset(self, name: str) -> dict[str, Any]:
        """Give the place in its source that a connector committed; nothing where it has committed none.

        Under another prefix of its topics a connector begins anew, and keeps the places of those before.
        """
        return await self.committed(name) or {}

    async def committed(self, name: str) -> dict[str, Any] | None:
        """Give the same, None where there is no such connector."""
        answer = await self._request("GET", f"/connectors/{name}/offsets", accept=(404,))
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        prefix = (await self.config(name)).get("topic.prefix")
        own = [each["offset"] for each in _body(answer)["offsets"] if each["partition"].get("server") == prefix]
        return dict(own[0] or {}) if own else {}

    async def has_snapshot(self, name: str) -> bool:
        """Say whether a connector has read its snapshot to the end, by the offsets that it committed."""
        answer = await self._request("GET", f"/connectors/{name}/offsets", accept=(404,))
        if answer.status_code == httpx.codes.NOT_FOUND:
            return False
        offsets = [entry["offset"] or {} for entry in _body(answer)["offsets"]]
        return bool(offsets) and not any(map(in_snapshot, offsets))

    async def restart(self, name: str) -> None:
        """Start a connector and those of its tasks that failed again."""
        await self._request("POST", f"/connectors/{name}/restart?includeTasks=true&onlyFailed=true")

    async def delete(self, name: str) -> None:
        """Remove a connector; nothing happens when there is none. Its offsets, and its slot in PostgreSQL, stay."""
        await self._request("DELETE", f"/connectors/{name}", accept=(404,))

    async def delete_with_offsets(self, name: str, timeout_s: float = 30.0) -> None:
        """Stop a connector, forget how far it had read, and remove it: one of the same name begins with a snapshot."""
        stopped = await self._request("PUT", f"/connectors/{name}/stop", accept=(404,))
        if stopped.status_code == httpx.codes.NOT_FOUND:
            return
        deadline = time.monotonic() + timeout_s
        while (status := await self.status(name)).state != "STOPPED" or status.tasks:
            if time.monotonic() >= deadline:
                raise CommandError(f"The connector {name} does not stop: {status.state}, tasks {status.tasks}.")
            await asyncio.sleep(_POLL_S)
        await self._request("DELETE", f"/connectors/{name}/offsets")
        await self.delete(name)

    async def _request(
        self, method: str, path: str, *, json: dict[str, str] | None = None, accept: Sequence[int] = ()
    ) -> httpx.Response:
        deadline = time.monotonic() + _BUSY_BOUND_S
        while True:
            try:
                answer = await self._client.request(method, path, json=json)
            except httpx.HTTPError as error:
                raise ConnectUnreachable(
                    f"Kafka Connect at {self._url} does not answer: {error or type(error).__name__}.",
                    "See: crossfade status",
                ) from error
            if answer.is_success:
                return answer
            said = _message(answer)
            starting = answer.status_code == httpx.codes.NOT_FOUND and not said
            busy = answer.status_code == httpx.codes.CONFLICT or _REBALANCE in said
            if not starting and answer.status_code in accept:
                return answer
            if not starting and not busy:
                said = said or f"{answer.status_code} {answer.text[:300]}"
                raise CommandError(f"Kafka Connect refuses {method} {path}: {said}")
            if time.monotonic() >= deadline:
                raise ConnectUnreachable(
                    f"At {self._url} answers something that is not Kafka Connect."
                    if starting
                    else f"Kafka Connect at {self._url} does nothing but rebalance: {said}."
                )
            await asyncio.sleep(_POLL_S)


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


def in_snapshot(offset: Mapping[str, Any]) -> bool:
    """Say whether a place that a connector committed is in its snapshot."""
    return bool(offset.get("snapshot")) and not offset.get("snapshot_completed")


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
    """Give the pattern of a name: Debezium reads lists as regular expressions, a dot and a dollar sign among them."""
    return name.replace("\\", "\\\\").replace(".", "\\.").replace("$", "\\$")


def _first_cause(trace: str) -> str:
    """Give the innermost cause's line of a Java stack trace, which is the one that says what is wrong."""
    lines = [line.strip() for line in trace.splitlines()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    causes = [cause for cause in causes if ": " in cause] or causes  # a name alone says nothing
    return causes[-1] if causes else (lines[0] if lines else "")


def _body(answer: httpx.Response) -> Any:
    """Return what an answer says. Raises ConnectUnreachable for one that is not Kafka Connect's, as a proxy's page."""
    try:
        return answer.json()
    except ValueError:
        raise ConnectUnreachable(
            f"What answers at {answer.url} is not Kafka Connect.", "Check the setting kafka.connect"
        ) from None


def _message(answer: httpx.Response) -> str:
    """Give the message of an error in Connect's own form, nothing for an answer in another one."""
    body: Any
    try:
        body = answer.json()
    except ValueError:
        body = None
    if isinstance(body, dict) and body.get("message"):
        return str(body["message"])
    return ""
