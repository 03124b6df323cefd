"""Turns Debezium's JSON envelope of one row change into an entry of the document log. The fold makes all decisions.

Expects converters without schemas that keep NULL, `decimal.handling.mode=string`,
`time.precision.mode=microseconds` (ISO 8601, which earlier releases sent, is also read) and
`binary.handling.mode=base64`. Source: Debezium's documentation of its PostgreSQL and MariaDB connectors, "Data change
events"; checked with 3.5.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError

from connectors.debezium.values import CapturedValues, InexactValue
from connectors.sql.layout import VERSION_COLUMN
from connectors.sql.values import row_content, row_key
from domain.fold import is_echo
from domain.legacy import TableDescription
from domain.positions import is_snapshot, mariadb_position, postgres_position
from schemas.cloudevents import InvalidEvent, explain, unreadable
from schemas.content import Content, content_hash
from schemas.documents import DocumentChanged, Position
from schemas.keys import UNUSABLE_ID, is_id
from schemas.records import Received
from schemas.settings import Collection
from topics.captures import Origin

UNAVAILABLE = "__debezium_unavailable_value"
OLD_KEY_HEADER = "__debezium.oldkey"

_UNAVAILABLE_FORMS = (UNAVAILABLE, base64.b64encode(UNAVAILABLE.encode()).decode(), [UNAVAILABLE])
_FIELDS = frozenset({"before", "after", "source", "transaction", "op", "ts_ms", "ts_us", "ts_ns"})
_HEARTBEAT_FIELDS = frozenset({"ts_ms", "ts_us", "ts_ns"})
_NO_TEXT = "the key makes no id: it is no text"
_POSTGRES = "postgresql"
_POSITIONS = {_POSTGRES: postgres_position, "mariadb": mariadb_position, "mysql": mariadb_position}


class ForeignChange(InvalidEvent):
    """A captured change belongs to another collection than its topic's. The changes next to it may, too."""


class SchemaChanged(InvalidEvent):
    """The error of a captured change is not confined to one row: later changes cannot be read either."""


class ColumnAbsent(SchemaChanged):
    """A captured row lacks a required column: the column was dropped, or was not captured yet."""

    def __init__(self, column: str) -> None:
        super().__init__(f"the row has no column {column}")
        self.column = column


@dataclass(frozen=True, slots=True)
class CapturedRow:
    """One row change as Debezium reports it.

    `operation`: r (read by a snapshot), c, u, d. `renamed`: the row got its key by a change of its primary key, which
    Debezium reports as a deletion and a creation.
    """

    operation: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    source: Mapping[str, Any]
    renamed: bool

    @property
    def row(self) -> Mapping[str, Any]:
        """The row that names the document: after the change, or before it if the row was deleted."""
        return self.after or self.before or {}


def decode_capture(
    record: Received,
    collection_name: str,
    collection: Collection,
    description: TableDescription,
    source_epoch: int,
    origin: Origin | None = None,
    columns: frozenset[str] = frozenset(),
) -> DocumentChanged | None:
    """Return the log entry of a captured change, None for tombstones and heartbeats.

    `columns` are the current columns of the table. A row that lacks one of them was captured before the column was
    configured: it is incomplete. A row with a text that was cut within a character is incomplete, too.

    Raises ForeignChange for a change that is not from the `origin`, if one is given.
    Raises SchemaChanged for a truncation, for an unknown operation or field, for a column that is gone, and for an
    update without its *before* image.
    Raises InvalidEvent for a change of a key that is not the table's primary key, and for values that no document can
    have.
    """
    try:
        captured = parse_envelope(record)
        if captured is None:
            return None
        _check_origin(captured, origin)
        return _changed(captured, record, collection_name, collection, description, source_epoch, columns)
    except RecursionError:
        raise SchemaChanged("its values are nested too deeply") from None


def _changed(
    captured: CapturedRow,
    record: Received,
    collection_name: str,
    collection: Collection,
    description: TableDescription,
    source_epoch: int,
    columns: frozenset[str],
) -> DocumentChanged:
    document_id = _document_id(captured, record, description)
    after = captured.after
    incomplete = after is not None and not _is_whole(after, description, columns)
    before_version, after_version = _versions(captured)
    try:
        changed = DocumentChanged(
            collection=collection_name,
            id=document_id,
            origin="legacy",
            deleted=after is None,
            before_version=before_version,
            after_version=after_version,
            snapshot=captured.operation == "r" or is_snapshot(captured.source),
            incomplete=incomplete,
            position=_position(captured.source, source_epoch),
            occurred_at_ms=int(captured.source.get("ts_ms") or 0),
        )
    except ValidationError as error:
        raise InvalidEvent(explain(error)) from None
    if after is None or incomplete or is_echo(changed):
        return changed
    try:
        content = _content(collection, description, after, captured.source, snapshot=changed.snapshot)
    except InexactValue:
        return changed.model_copy(update={"incomplete": True})
    return changed.model_copy(update={"content": content, "content_hash": content_hash(content)})


def _content(
    collection: Collection,
    description: TableDescription,
    after: Mapping[str, Any],
    source: Mapping[str, Any],
    *,
    snapshot: bool,
) -> Content:
    """Return the content of a captured row. Raises InexactValue."""
    values = CapturedValues(description.details, snapshot=snapshot, pads_uuids=source.get("connector") != _POSTGRES)
    for name in (*description.text, *([description.tenant] if description.tenant else [])):
        values.require_sure(name, after.get(name))
    form = collection.embedding.format if collection.embedding else None
    return row_content(description, form, after, values)


def _check_origin(captured: CapturedRow, origin: Origin | None) -> None:
    other = None if origin is None else origin.difference(captured.source)
    if other is not None:
        raise ForeignChange(other)


def parse_envelope(record: Received) -> CapturedRow | None:
    """Return the row change in a record, None for tombstones and heartbeats. Raises InvalidEvent."""
    if record.unread:
        raise SchemaChanged(unreadable(record))
    if record.value is None:
        return None
    value = _json_object(record.value, "value")
    if value.keys() <= _HEARTBEAT_FIELDS:
        return None
    if value.keys() == {"schema", "payload"}:
        raise SchemaChanged("the converter wraps values in a schema: set value.converter.schemas.enable=false")
    unknown = sorted(value.keys() - _FIELDS)
    if unknown:
        raise SchemaChanged(f"not a Debezium envelope: unknown field {', '.join(map(repr, unknown))}")
    operation, source = value.get("op"), value.get("source")
    if operation == "t":
        raise SchemaChanged("the table was truncated: the documents that are gone are not named")
    if not isinstance(operation, str) or operation not in {"r", "c", "u", "d"}:
        raise SchemaChanged(f"unknown operation {operation!r}")
    if not isinstance(source, dict):
        raise SchemaChanged("the envelope has no source")
    before, after = _image(value, "before"), _image(value, "after")
    if (after is None) != (operation == "d"):
        raise SchemaChanged(f"operation {operation} {'without' if after is None else 'with'} an image after it")
    renamed = operation == "c" and record.header(OLD_KEY_HEADER) is not None
    return CapturedRow(operation, before, after, source, renamed)


def _json_object(raw: bytes, what: str) -> dict[str, Any]:
    """Return the object in a value or key of Debezium, including any half characters. Raises SchemaChanged.

    Debezium cuts a long text by Java's character count, possibly in the middle of a character. Half of a surrogate
    pair is left, and orjson does not accept it as JSON.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        try:
            value = json.loads(raw, parse_constant=_refuse_constant)
        except ValueError:
            raise SchemaChanged(f"the {what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise SchemaChanged(f"the {what} is not an object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _is_cut(value: Any) -> bool:
    """Return whether a value has half of a character. It is not what the row holds, and no store accepts it."""
    if not isinstance(value, str) or value.isascii():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


def _image(value: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    image = value.get(name)
    if image is not None and not isinstance(image, dict):
        raise SchemaChanged(f"{name} is not an object")
    return image


def _document_id(captured: CapturedRow, record: Received, description: TableDescription) -> str:
    row = captured.row
    if captured.operation == "d" and not _has_key(row, description) and record.key is not None:
        return id_in_key(record.key, description)
    document_id = _id_of(row, description)
    before = captured.before
    moved = captured.operation == "u" and before is not None and _has_key(before, description)
    if moved and before is not None and _id_of(before, description) != document_id:
        raise InvalidEvent("an update changed the key, which is not the table's primary key; run verify --repair")
    return document_id


def id_in_key(key: bytes, description: TableDescription) -> str:
    """Return the document id in the key of a captured record. Raises InvalidEvent for a key that names no document."""
    return _id_of(_json_object(key, "key"), description)


def _id_of(row: Mapping[str, Any], description: TableDescription) -> str:
    if not _has_key(row, description):
        raise SchemaChanged(f"no value of the key {', '.join(description.key)}")
    try:
        document_id = row_key(description, row)
    except (UnicodeEncodeError, RecursionError):
        raise InvalidEvent(_NO_TEXT) from None
    if _is_cut(document_id):
        raise InvalidEvent(_NO_TEXT)
    if not is_id(document_id):
        raise InvalidEvent(UNUSABLE_ID)
    return document_id


def _has_key(row: Mapping[str, Any], description: TableDescription) -> bool:
    return all(row.get(name) is not None for name in description.key)


def _is_whole(after: Mapping[str, Any], description: TableDescription, columns: frozenset[str]) -> bool:
    """Return whether a row has all values that a document is made of.

    A change carries the whole row. If the database's log leaves out an unchanged value, Debezium takes it from the
    *before* image. If Debezium could not do that, it sends a placeholder, and the row is read again. The same happens
    if a text equals the placeholder.

    Debezium names every configured column in every row. Raises ColumnAbsent for a column that it does not name.
    """
    used = [*description.key, *description.text, *description.metadata]
    used += [name for name in (description.tenant, description.embedding) if name]
    for name in used:
        if name not in after and name not in columns:
            raise ColumnAbsent(name)
    return all(name in after and after[name] not in _UNAVAILABLE_FORMS and not _is_cut(after[name]) for name in used)


def _versions(captured: CapturedRow) -> tuple[int | None, int | None]:
    """Return the row's version before and after the change.

    A row that got its key by a change of its primary key carries the version of another document. It has no version
    here.
    """
    if captured.renamed:
        return None, None
    before, after = captured.before, captured.after
    if after is not None and VERSION_COLUMN not in after:
        raise SchemaChanged(f"the row has no {VERSION_COLUMN}")
    if captured.operation == "u" and (before is None or VERSION_COLUMN not in before):
        raise SchemaChanged(f"no {VERSION_COLUMN} before a change: REPLICA IDENTITY or row image is not FULL")
    return _version(before), _version(after)


def _version(row: Mapping[str, Any] | None) -> int | None:
    value = None if row is None else row.get(VERSION_COLUMN)
    if value is not None and not isinstance(value, int):
        raise SchemaChanged(f"{VERSION_COLUMN} is not an integer")
    return value


def _position(source: Mapping[str, Any], source_epoch: int) -> Position:
    connector = source.get("connector")
    position = _POSITIONS.get(str(connector))
    if position is None:
        raise SchemaChanged(f"unknown connector {connector!r}")
    try:
        return position(source, source_epoch)
    except (ValueError, TypeError) as error:
        raise SchemaChanged(f"no position in the database's log: {error}") from None
