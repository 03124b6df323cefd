"""Kafka Connect over its REST interface: connectors, their states, their offsets. Builds no configuration."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, cast

import httpx
from pydantic import BaseModel, ConfigDict, TypeAdapter

from connectors.errors import ConnectError, ConnectUnreachable

ConnectorState = Literal["UNASSIGNED", "RUNNING", "PAUSED", "STOPPED", "FAILED", "RESTARTING", "MISSING"]

_REQUEST_BOUND_S = 15.0
# While its worker group changes, Connect answers 409, or 500 with these words; its default `rebalance.timeout.ms` is a
# minute. While it starts, it answers every path with 404, in HTML instead of its own JSON.
_REBALANCE = "a rebalance is expected"
_BUSY_BOUND_S = 90.0
_POLL_S = 0.1
# How Debezium reports the statement that its parser does not know.
_UNKNOWN_DDL = re.compile(r"DDL statement couldn't be parsed.*? with the statement '(.*?)'\n", re.DOTALL)
_OTHER_COLUMNS = re.compile(r"Error processing row in (\S+), internal schema size \d+, but row size \d+")

# How Debezium and the databases report a lost slot or binary log; seen with 3.5, PostgreSQL 18, MariaDB 10.11.
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


# The states that only an operator sets; a worker does not undo them.
_LEFT_ALONE = frozenset({"PAUSED", "STOPPED"})


@dataclass(frozen=True, slots=True)
class ConnectorStatus:
    """The state of a connector and of its tasks; `failure` is the cause in the first stack trace, if any.

    `statement` is the statement that a MariaDB connector does not understand, if that ended it. `table` is the table
    whose rows have other columns than the connector knows, as after such a statement, or after one that is not in the
    binary log.
    """

    name: str
    state: ConnectorState
    tasks: tuple[ConnectorState, ...]
    failure: str | None
    statement: str | None = None
    table: str | None = None

    @property
    def running(self) -> bool:
        """Whether the connector and at least one task run, and no task is in another state."""
        return self.state == "RUNNING" and bool(self.tasks) and all(task == "RUNNING" for task in self.tasks)

    @property
    def trouble(self) -> str:
        """Why the connector does not run, as a sentence without its full stop."""
        if self.failed:
            return str(self.failure) + (f"; {_TOO_LARGE}" if _IS_TOO_LARGE in (self.failure or "") else "")
        state = f"{self.name} is {self.state.lower()}"
        return f"{state} by somebody, who is to resume it in Kafka Connect" if self.state in _LEFT_ALONE else state

    @property
    def lost(self) -> bool:
        """Whether it failed because the database's log no longer has the position at which it would resume."""
        return self.failed and any(sign in (self.failure or "").lower() for sign in _LOST_SIGNS)

    @property
    def failed(self) -> bool:
        """Whether the connector or a task ended with an error and will not resume by itself."""
        return self.state == "FAILED" or "FAILED" in self.tasks


class _Part(BaseModel):
    """A connector, or one of its tasks, in an answer of Kafka Connect."""

    state: str
    trace: str | None = None


class _Status(BaseModel):
    connector: _Part
    tasks: list[_Part]


class _Place(BaseModel):
    """A replication position as Debezium commits it: the fields that are read here, and others."""

    model_config = ConfigDict(extra="allow")
    lsn: int | None = None
    file: str | None = None
    pos: int | None = None
    gtids: str | None = None


class _Offset(BaseModel):
    partition: dict[str, Any]
    offset: _Place | None = None

    @property
    def place(self) -> dict[str, Any]:
        """The fields that were committed."""
        return {} if self.offset is None else self.offset.model_dump(exclude_unset=True)


class _Offsets(BaseModel):
    offsets: list[_Offset]


T = TypeVar("T")
_NAMES = TypeAdapter(list[str])
_CONFIG = TypeAdapter(dict[str, str | None])
_STATUS = TypeAdapter(_Status)
_OFFSETS = TypeAdapter(_Offsets)


# For clients over plain HTTP: loading the trusted certificates takes 60 ms. This context trusts no certificate.
PLAIN = SSLContext(PROTOCOL_TLS_CLIENT)


class ConnectClient:
    """A client of one Connect cluster, at `url` (http). Every call raises ConnectError when it is refused."""

    def __init__(self, url: str) -> None:
        self._url = url
        verify = True if url.lower().startswith("https:") else PLAIN
        self._client = httpx.AsyncClient(base_url=url, timeout=_REQUEST_BOUND_S, trust_env=False, verify=verify)

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
        """Return the names of all connectors."""
        answer = await self._request("GET", "/connectors")
        found = _body(answer, _NAMES)
        return tuple(sorted(found))

    async def put_config(self, name: str, config: dict[str, str]) -> None:
        """Create the connector or change its configuration; do nothing if it already has this configuration."""
        if await self.config(name) == {**config, "name": name}:
            return
        await self._request("PUT", f"/connectors/{name}/config", json=config)

    async def config(self, name: str) -> dict[str, str]:
        """Return the configuration of a connector, empty when there is no such connector."""
        answer = await self._request("GET", f"/connectors/{name}/config", accept=(404,))
        found = _body(answer, _CONFIG) if answer.status_code == httpx.codes.OK else {}
        return {key: value for key, value in found.items() if value is not None}

    async def status(self, name: str) -> ConnectorStatus:
        """Return the state of a connector; `MISSING` when there is none of that name."""
        answer = await self._request("GET", f"/connectors/{name}/status", accept=(404,))
        if answer.status_code == httpx.codes.NOT_FOUND:
            # Connect reads states from a separate topic, sometimes later than the list of connectors.
            return ConnectorStatus(name, "UNASSIGNED" if await self.config(name) else "MISSING", (), None)
        body = _body(answer, _STATUS)
        traces = [part.trace for part in (body.connector, *body.tasks) if part.trace]
        unknown = _UNKNOWN_DDL.search(traces[0]) if traces else None
        other = _OTHER_COLUMNS.search(traces[0]) if traces else None
        return ConnectorStatus(
            name=name,
            state=cast(ConnectorState, body.connector.state),
            tasks=tuple(cast(ConnectorState, task.state) for task in body.tasks),
            failure=_first_cause(traces[0]) if traces else None,
            statement=unknown[1] if unknown else None,
            table=other[1] if other else None,
        )

    async def wait_running(self, name: str, timeout_s: float) -> ConnectorStatus:
        """Wait until the connector and its tasks run. Raises ConnectError when one fails, or after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            status = await self.status(name)
            if status.running:
                return status
            if status.failed:
                raise ConnectError(
                    f"The connector {name} failed: {status.trouble}", "Fix the cause; a worker starts it again."
                )
            if time.monotonic() >= deadline:
                raise ConnectError(
                    f"The connector {name} does not run after {timeout_s:.0f} s: {status.state}, tasks {status.tasks}."
                )
            await asyncio.sleep(_POLL_S)

    async def offset(self, name: str) -> dict[str, Any]:
        """Return the position in its source that a connector committed; empty if it has committed none.

        Under another topic prefix a connector begins again, and keeps the positions of earlier prefixes.
        """
        return await self.committed(name) or {}

    async def committed(self, name: str) -> dict[str, Any] | None:
        """Return the same as `offset`, None if there is no such connector."""
        answer = await self._request("GET", f"/connectors/{name}/offsets", accept=(404,))
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        prefix = (await self.config(name)).get("topic.prefix")
        own = [each.place for each in _body(answer, _OFFSETS).offsets if each.partition.get("server") == prefix]
        return own[0] if own else {}

    async def has_snapshot(self, name: str) -> bool:
        """Return whether a connector has read its snapshot to the end, by the offsets that it committed."""
        answer = await self._request("GET", f"/connectors/{name}/offsets", accept=(404,))
        if answer.status_code == httpx.codes.NOT_FOUND:
            return False
        offsets = [each.place for each in _body(answer, _OFFSETS).offsets]
        return bool(offsets) and not any(map(in_snapshot, offsets))

    async def restart(self, name: str) -> None:
        """Restart a connector and its failed tasks."""
        await self._request("POST", f"/connectors/{name}/restart?includeTasks=true&onlyFailed=true")

    async def delete(self, name: str) -> None:
        """Remove a connector; do nothing when there is none. Its offsets, and its slot in PostgreSQL, stay."""
        await self._request("DELETE", f"/connectors/{name}", accept=(404,))

    async def delete_with_offsets(self, name: str, timeout_s: float = 30.0) -> None:
        """Stop a connector, delete its offsets, and remove it: a new one of the same name begins with a snapshot."""
        stopped = await self._request("PUT", f"/connectors/{name}/stop", accept=(404,))
        if stopped.status_code == httpx.codes.NOT_FOUND:
            return
        deadline = time.monotonic() + timeout_s
        while (status := await self.status(name)).state != "STOPPED" or status.tasks:
            if time.monotonic() >= deadline:
                raise ConnectError(f"The connector {name} does not stop: {status.state}, tasks {status.tasks}.")
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
            answer_text = _message(answer)
            starting = answer.status_code == httpx.codes.NOT_FOUND and not answer_text
            busy = answer.status_code == httpx.codes.CONFLICT or _REBALANCE in answer_text
            if not starting and answer.status_code in accept:
                return answer
            if not starting and not busy:
                answer_text = answer_text or f"{answer.status_code} {answer.text[:300]}"
                raise ConnectError(f"Kafka Connect refuses {method} {path}: {answer_text}")
            if time.monotonic() >= deadline:
                raise ConnectUnreachable(
                    f"At {self._url} answers something that is not Kafka Connect."
                    if starting
                    else f"Kafka Connect at {self._url} does nothing but rebalance: {answer_text}."
                )
            await asyncio.sleep(_POLL_S)


def in_snapshot(offset: Mapping[str, Any]) -> bool:
    """Return whether a position that a connector committed is in its snapshot."""
    return bool(offset.get("snapshot")) and not offset.get("snapshot_completed")


def _first_cause(trace: str) -> str:
    """Return the line of the innermost cause in a Java stack trace: the line that says what is wrong."""
    lines = [line.strip() for line in trace.splitlines()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    causes = [cause for cause in causes if ": " in cause] or causes  # a name alone says nothing
    return causes[-1] if causes else (lines[0] if lines else "")


def _body(answer: httpx.Response, shape: TypeAdapter[T]) -> T:
    """Return the body of an answer. Raises ConnectUnreachable if it is not Kafka Connect's, such as a proxy's page."""
    try:
        return shape.validate_json(answer.content)
    except ValueError:
        raise ConnectUnreachable(
            f"What answers at {answer.url} is not Kafka Connect.", "Check the setting kafka.connect"
        ) from None


def _message(answer: httpx.Response) -> str:
    """Return the message of an error in Connect's own form, the empty string for any other answer."""
    body: Any
    try:
        body = answer.json()
    except ValueError:
        body = None
    if isinstance(body, dict) and body.get("message"):
        return str(body["message"])
    return ""
