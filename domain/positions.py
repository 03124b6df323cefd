"""Positions in a database's log as tuples of integers that compare as the changes happened.

`(source epoch, 0 snapshot | 1 stream, ...)`: PostgreSQL adds the last commit's LSN and the LSN of the change,
MariaDB the number of the binlog file, the position in it and the row in the event. A raised source epoch (a snapshot
taken again after the database log was lost) makes every later position higher. Source: Debezium's `source` block.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    """Return the position in a Debezium MariaDB `source` block. Raises ValueError without a binlog number."""
    number = str(source.get("file") or "").rpartition(".")[2]
    if not number.isdigit():
        raise ValueError("source.file has no binlog number")
    return source_epoch, _stage(source), int(number), int(source.get("pos") or 0), int(source.get("row") or 0)


def postgres_end(lsn: int, source_epoch: int) -> Position:
    """Return a position that none in a PostgreSQL log which ends at `lsn` is above."""
    return source_epoch, _STREAM, lsn, lsn


def mariadb_end(file: str, position: int, source_epoch: int) -> Position:
    """Return a position that none in a MariaDB log is above; its next event begins at `position` of `file`."""
    return source_epoch, _STREAM, int(file.rpartition(".")[2]), position


def is_snapshot(source: Mapping[str, Any]) -> bool:
    """Say whether Debezium read the row in a snapshot (`true`, `first`, `last`, ...), not from the stream."""
    return str(source.get("snapshot", "false")).lower() not in {"false", "none", ""}


def _stage(source: Mapping[str, Any]) -> int:
    return _SNAPSHOT if is_snapshot(source) else _STREAM
