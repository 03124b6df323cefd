"""Debezium's row-change envelope (JSON without schema) to an entry of the document log. Decides nothing about it.

Expects the connector settings of `operations.connectors_api`: decimals as strings, times as ISO strings, base64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from connectors.sql_values import row_content, row_key
from domain.fold import is_echo
from domain.legacy import TableDescription
from domain.positions import is_snapshot, mariadb_position, postgres_position
from schemas.cloudevents import InvalidEvent
from schemas.content import content_hash
from schemas.documents import DocumentChanged
from schemas.records import Received
from schemas.settings import Collection

UNAVAILABLE = "__debezium_unavailable_value"
VERSION_COLUMN = "crossfade_version"
_OPERATIONS = {"r", "c", "u", "d"}


def decode_capture(
    record: Received,
    name: str,
    collection: Collection,
    description: TableDescription,
    source_epoch: int,
) -> DocumentChanged | None:
    """Return the log entry of a captured change, None for a tombstone, which only follows a deletion.

    Our own echo and an incomplete row carry no content. Raises InvalidEvent for anything that is not a row change of
    this table: it must stop there and be seen, never be skipped in silence.
    """
    if record.value is None:
        return None
    envelope = _envelope(record.value)
    before, after, source = envelope.get("before"), envelope.get("after"), envelope["source"]
    row = after if after is not None else before
    if row is None:
        raise InvalidEvent("a change with neither before nor after")
    missing = [column for column in description.key if row.get(column) is None]
    if missing:
        raise InvalidEvent(f"a row without its key column {', '.join(missing)}")
    deleted = envelope["op"] == "d"
    incomplete = not deleted and not _complete(row, collection, description)
    changed = DocumentChanged(
        collection=name,
        id=row_key(description, row),
        origin="legacy",
        deleted=deleted,
        before_version=(before or {}).get(VERSION_COLUMN),
        after_version=None if deleted else row.get(VERSION_COLUMN),
        snapshot=is_snapshot(source),
        incomplete=incomplete,
        position=_position(collection, source, source_epoch),
        occurred_at_ms=int(source.get("ts_ms") or 0),
    )
    if deleted or incomplete or is_echo(changed):
        return changed
    form = collection.embedding.format if collection.embedding else None
    content = row_content(description, form, row)
    return changed.model_copy(update={"content": content, "content_hash": content_hash(content)})


def _envelope(value: bytes) -> dict[str, Any]:
    try:
        envelope = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise InvalidEvent(f"not JSON: {error}") from error
    if not isinstance(envelope, dict) or not isinstance(envelope.get("source"), dict):
        raise InvalidEvent("not a Debezium envelope without schema (value.converter.schemas.enable=false)")
    if envelope.get("op") not in _OPERATIONS:
        raise InvalidEvent(f"operation {envelope.get('op')!r} of the table cannot be followed row by row")
    return envelope


def _complete(row: Mapping[str, Any], collection: Collection, description: TableDescription) -> bool:
    embedding = [description.embedding] if description.embedding else []
    tenant = [description.tenant] if description.tenant else []
    columns = [*collection.text, *description.metadata, *tenant, *embedding]
    return all(column in row and row[column] != UNAVAILABLE for column in columns)


def _position(collection: Collection, source: Mapping[str, Any], source_epoch: int) -> tuple[int, ...]:
    try:
        if collection.connector == "postgres":
            return postgres_position(source, source_epoch)
        return mariadb_position(source, source_epoch)
    except (ValueError, TypeError) as error:
        raise InvalidEvent(f"no position in the database's log: {error}") from error
