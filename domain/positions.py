"""Positions in a database's log as tuples of integers that sort in the order of the changes.

`(source epoch, 0 snapshot | 1 stream, ...)`: PostgreSQL adds the LSN of the last commit and the LSN of the change.
MariaDB adds the number of the binlog file, the position in it and the row in the event. A raised source epoch (a new
snapshot after the database log was lost) makes every later position higher. Source: Debezium's `source` block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from schemas.documents import Position

_SNAPSHOT, _STREAM = 0, 1


def postgres_position(source: Mapping[str, Any], source_epoch: int) -> Position:
    """Return the position in a Debezium PostgreSQL `source` block. Raises ValueError when it has no sequence."""
    sequence = source.get("sequence")
    if not isinstance(sequence, str):
        raise ValueError("source.sequence is missing")
    commit, change = orjson.loads(sequence)
    return source_epoch, _stage(source), int(commit or 0), int(change or 0)


def mariadb_position(source: Mapping[str, Any], source_epoch: int) -> Position:
    """Return the position in a Debezium MariaDB `source` block. Raises ValueError as `binlog_number`."""
    number = binlog_number(str(source.get("file") or ""))
    return source_epoch, _stage(source), number, int(source.get("pos") or 0), int(source.get("row") or 0)


def postgres_end(lsn: int, source_epoch: int) -> Position:
    """Return an upper bound of the positions in a PostgreSQL log that ends at `lsn`."""
    return source_epoch, _STREAM, lsn, lsn


def mariadb_end(file: str, position: int, source_epoch: int) -> Position:
    """Return an upper bound of the positions in a MariaDB log whose next event begins at `position` of `file`."""
    return source_epoch, _STREAM, binlog_number(file), position


def binlog_number(file: str) -> int:
    """Return the number of a binary log file (`binlog.000120`: 120). Raises ValueError if it has none."""
    number = file.rpartition(".")[2]
    if not number.isdigit():
        raise ValueError(f"{file!r} has no binlog number")
    return int(number)


def lsn_number(lsn: str) -> int:
    """Return a PostgreSQL log sequence number (`16/B374D848`) as an integer."""
    high, _, low = lsn.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def is_snapshot(source: Mapping[str, Any]) -> bool:
    """Return whether Debezium read the row in a snapshot (`true`, `first`, `last`, ...), not from the stream."""
    return str(source.get("snapshot", "false")).lower() not in {"false", "none", ""}


def _stage(source: Mapping[str, Any]) -> int:
    return _SNAPSHOT if is_snapshot(source) else _STREAM


@dataclass(slots=True)
class StreamPlaces:
    """The highest position and the latest time of the captured changes, for each partition of capture's topics.

    A connector that restarts delivers earlier changes again. These have lower positions, and times that were seen
    already or that precede the capture of the first change seen. A change with a lower position and a later time comes
    from a log that began again: the server was replaced, restored or reset. By its position alone it would count as a
    second delivery.
    """

    _highest: dict[tuple[str, int], tuple[Position, int]] = field(default_factory=dict)

    def went_back(
        self, topic: str, partition: int, position: Position, occurred_at_ms: int, captured_at_ms: int
    ) -> bool:
        """Record a captured change and its time of arrival in the topic. Return whether the log went back before it."""
        if len(position) < 2 or position[1] != _STREAM:  # a snapshot row has no position in the stream
            return False
        # Times are by the database's clock, which may differ from the brokers'. Only the first change also counts its
        # capture time, to cover the changes before it.
        highest, latest_ms = self._highest.get((topic, partition), ((), max(occurred_at_ms, captured_at_ms)))
        if position < highest and occurred_at_ms > latest_ms:
            return True
        self._highest[topic, partition] = max(position, highest), max(occurred_at_ms, latest_ms)
        return False
