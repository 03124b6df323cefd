"""Debezium's envelopes become log entries that the fold can decide. Nothing unknown is silently accepted."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import orjson
import pytest

from connectors.debezium.changes import UNAVAILABLE, SchemaChanged, decode_capture, id_in_key
from domain.fold import LedgerState, Verdict, fold, is_echo
from domain.legacy import ColumnDetails, TableDescription
from schemas.cloudevents import InvalidEvent
from schemas.documents import DocumentChanged
from schemas.records import Received
from schemas.settings import Collection
from schemas.values import Kind

SAMPLES = Path(__file__).parent / "samples"
COLLECTION = Collection(table="sample", key=("id",), text=("body",), metadata=("n",))
TABLE = TableDescription(("id",), ("body",), {"n": Kind.INTEGER}, None, None)


def samples(connector: str) -> list[tuple[str, Received]]:
    lines = (SAMPLES / f"debezium_{connector}.jsonl").read_bytes().splitlines()
    return [(message["what"], received(message)) for message in map(orjson.loads, lines)]


def received(message: dict[str, Any]) -> Received:
    value = None if message["value"] is None else orjson.dumps(message["value"])
    headers = tuple((name, str(text).encode()) for name, text in message.get("headers", []))
    return Received(message.get("topic", "t"), 0, 0, orjson.dumps(message.get("key")), value, headers)


def decode(record: Received, table: TableDescription = TABLE) -> DocumentChanged | None:
    return decode_capture(record, "documents", COLLECTION, table, 1)


def row(**values: Any) -> dict[str, Any]:
    return {"id": 1, "body": "b", "n": 1, "crossfade_version": None} | values


def change(operation: Any, before: Any, after: Any, **other: Any) -> Received:
    source = {"connector": "postgresql", "sequence": '["1","2"]', "snapshot": "false", "ts_ms": 5}
    value = {"op": operation, "before": before, "after": after, "source": source, "ts_ms": 9, "transaction": None}
    return received({"key": {"id": 1}, "value": value | other})


def decoded(record: Received, table: TableDescription = TABLE) -> DocumentChanged:
    changed = decode(record, table)
    assert changed is not None
    return changed


@pytest.mark.parametrize("connector", ["postgres", "mariadb"])
def test_what_the_real_connectors_send_is_decoded_in_order(connector: str) -> None:
    entries = [(what, decode(record)) for what, record in samples(connector)]
    reported = [
        (what, entry.id, entry.deleted, entry.snapshot, entry.before_version, entry.after_version)
        for what, entry in entries
        if entry is not None
    ]
    assert reported == [
        ("snapshot", "1", False, True, None, None),
        ("insert", "2", False, False, None, None),
        ("insert", "3", False, False, None, None),
        ("update", "2", False, False, None, 42),
        ("delete", "3", True, False, None, None),
        ("insert", "9", False, False, None, None),
        ("delete", "2", True, False, 42, None),
    ]
    assert {what for what, entry in entries if entry is None} == {"tombstone", "heartbeat"}
    for document in "123":
        positions = [entry.position for _, entry in entries if entry is not None and entry.id == document]
        assert positions == sorted(set(positions))


@pytest.mark.parametrize("connector", ["postgres", "mariadb"])
def test_an_echo_travels_without_its_content_and_others_with_it(connector: str) -> None:
    for what, record in samples(connector):
        entry = decode(record)
        if entry is None or entry.deleted:
            continue
        assert (entry.content is None) == is_echo(entry) == (what == "update")


def test_a_row_renamed_by_the_application_is_no_echo_of_ours_and_no_removed_row() -> None:
    """It carries the version of its former document, which says nothing about its present one."""
    record = change("c", None, row(crossfade_version=42))
    renamed = Received("t", 0, 0, record.key, record.value, (("__debezium.oldkey", b'{"id":3}'),))
    assert is_echo(decoded(record))
    entry = decoded(renamed)
    assert not is_echo(entry)
    assert entry.content is not None
    assert fold(LedgerState(removed=True), 1, entry)[0] is Verdict.TAKES_EFFECT


def test_times_and_positions_come_from_the_source() -> None:
    entry = decoded(change("c", None, row()))
    assert (entry.occurred_at_ms, entry.position, entry.origin) == (5, (1, 1, 1, 2), "legacy")


@pytest.mark.parametrize("body", [UNAVAILABLE, base64.b64encode(UNAVAILABLE.encode()).decode(), [UNAVAILABLE]])
@pytest.mark.parametrize("before", ["long", UNAVAILABLE, None])
def test_a_row_that_is_not_whole_is_incomplete_and_has_no_content(before: Any, body: Any) -> None:
    entry = decoded(change("u", row(body=before), row(body=body)))
    assert (entry.incomplete, entry.content, entry.content_hash) == (True, None, None)
    assert fold(LedgerState(), 1, entry)[0] is Verdict.READ_AGAIN


def test_a_deletion_without_an_image_takes_its_id_from_the_key() -> None:
    entry = decoded(change("d", None, None))
    assert (entry.id, entry.deleted, entry.before_version) == ("1", True, None)


def test_keys_of_several_columns_make_one_id() -> None:
    table = TableDescription(("shop", "id"), ("body",), {"n": Kind.INTEGER}, None, None)
    assert decoded(change("c", None, row(shop="a/b")), table).id == "a%2Fb/1"


def cut(record: Received) -> Received:
    """Return a change as Debezium writes it if a text was cut within a character. `received` cannot write that."""
    return record._replace(value=(record.value or b"").replace(b"CUT", b"long \\ud83d"))


@pytest.mark.parametrize(
    "record",
    [
        change("u", row(), row(body="CUT")),
        change("c", None, row(body="CUT")),
        change("u", row(), row(n="CUT")),
    ],
    ids=["updated", "inserted", "metadata"],
)
def test_a_row_with_a_text_that_was_cut_within_a_character_is_read_again(record: Received) -> None:
    entry = decoded(cut(record))
    assert (entry.id, entry.incomplete, entry.content, entry.content_hash) == ("1", True, None, None)
    assert fold(LedgerState(), 1, entry)[0] is Verdict.READ_AGAIN


def test_a_text_that_was_cut_is_nothing_to_the_changes_after_it() -> None:
    entry = decoded(cut(change("u", row(body="CUT"), row(body="short"))))
    assert entry.content is not None
    assert (entry.content.text, entry.incomplete) == ({"body": "short"}, False)
    assert decoded(cut(change("d", row(body="CUT"), None))).deleted


@pytest.mark.parametrize("columns", [("id",), ("shop", "id")])
def test_a_key_with_half_a_character_is_wrong_by_itself(columns: tuple[str, ...]) -> None:
    table = TableDescription(columns, ("body",), {"n": Kind.INTEGER}, None, None)
    with pytest.raises(InvalidEvent, match="no text") as reported:
        decode(cut(change("c", None, row(shop="a", id="CUT"))), table)
    assert not isinstance(reported.value, SchemaChanged)
    with pytest.raises(InvalidEvent, match="no text"):
        id_in_key(b'{"shop": "a", "id": "\\ude00"}', table)


def test_a_key_names_its_document() -> None:
    assert id_in_key(b'{"id": 7}', TABLE) == "7"
    for key in (b"7", b"{", b'{"n": 7}', b'{"id": null}', b'{"id": ' + b"[" * 900 + b"]" * 900 + b"}"):
        with pytest.raises(InvalidEvent):
            id_in_key(key, TABLE)


def nested(record: Received, depth: int) -> Received:
    return record._replace(value=(record.value or b"").replace(b'"DEEP"', b"[" * depth + b"]" * depth))


@pytest.mark.parametrize("depth", [990, 1000, 100_000])
@pytest.mark.parametrize(
    "record",
    [
        change("c", None, row(body="DEEP")),
        change("c", None, row(id="DEEP")),
        change("DEEP", None, row()),
        change("c", None, row(), source={"connector": "DEEP"}),
    ],
    ids=["text", "key", "operation", "connector"],
)
def test_values_that_are_nested_without_end_are_reported_as_every_other_that_cannot_be_read(
    record: Received, depth: int
) -> None:
    with pytest.raises(InvalidEvent):
        decode(nested(record, depth))


STRUCTURE = [
    (change("t", None, None), "truncated"),
    (change("m", None, None), "operation 'm'"),
    (change("c", None, row(), surprise=1), "surprise"),
    (change("c", None, None), "without an image"),
    (change("d", row(), row()), "with an image"),
    (change("u", None, row()), "REPLICA IDENTITY"),
    (change("u", {"id": 1}, row()), "REPLICA IDENTITY"),
    (change("c", None, {"id": 1, "body": "b", "n": 1}), "crossfade_version"),
    (change("u", row(), {"id": 1, "n": 1, "crossfade_version": None}), "no column body"),
    (change("u", row(), {"id": 1, "body": "b", "crossfade_version": None}), "no column n"),
    (change("c", None, row(crossfade_version="7")), "not an integer"),
    (change("c", None, row(id=None)), "no value of the key"),
    (change("c", None, row(), source={"connector": "oracle"}), "oracle"),
    (change("c", None, row(), source={"connector": "postgresql"}), "sequence"),
    (change("c", None, row(), source={"connector": "mariadb", "file": None}), "binlog"),
    (change("c", None, row(), source=None), "no source"),
    (change("c", None, "text"), "not an object"),
    (received({"key": {}, "value": {"schema": {}, "payload": {}}}), "schemas.enable"),
    (Received("t", 0, 0, b"{}", b"not json"), "not JSON"),
    (Received("t", 0, 0, b"{}", b'{"op": NaN}'), "not JSON"),
    (Received("t", 0, 0, b"{}", b'{"op": "\xff"}'), "not JSON"),
    (change([], None, row()), "unknown operation"),
    (Received("t", 0, 0, b"{}", b"[1]"), "not an object"),
]


@pytest.mark.parametrize(("record", "message"), STRUCTURE)
def test_what_makes_all_later_changes_unreadable_too_is_reported_as_a_changed_schema(
    record: Received, message: str
) -> None:
    with pytest.raises(SchemaChanged, match=message):
        decode(record)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (change("u", row(id=2), row()), "changed the key"),
        (change("c", None, row(id="x" * 600)), "id"),
    ],
)
def test_what_is_wrong_with_one_row_alone_is_an_invalid_event_that_says_why(record: Received, message: str) -> None:
    with pytest.raises(InvalidEvent, match=message) as reported:
        decode(record)
    assert not isinstance(reported.value, SchemaChanged)


@pytest.mark.parametrize("column", ["mood", "body", "tenant"])
@pytest.mark.parametrize(
    ("label", "sure"),
    [("sad", True), ("", True), (None, True), ("a\\,b", False), ("c\\\\d", False), ("c\\d", False), ("new", False)],
)
def test_a_label_that_capture_may_have_escaped_is_read_again(column: str, label: str | None, sure: bool) -> None:
    details = {column: ColumnDetails(labels=("sad", "a,b", "c\\d", "c\\\\d", ""))}
    table = TableDescription(("id",), ("body",), {"mood": Kind.TEXT}, "tenant", None, details)
    given = row(mood="sad", tenant="sad") | {column: label}
    assert decoded(change("c", None, given), table).incomplete is not sure


@pytest.mark.parametrize(
    ("connector", "value", "sure"),
    [
        ("mariadb", "00000000-0000-6f1d-8a52-3c1b5d0e9a77", False),
        ("mariadb", "6f1d8a52-3c1b-5d0e-9a77-2b9f6c3d4e10", True),
        ("mariadb", None, True),
        ("postgresql", "00000000-0000-6f1d-8a52-3c1b5d0e9a77", True),
        ("postgresql", "not-a-uuid", False),
    ],
)
def test_a_uuid_that_begins_with_zeros_is_read_again_from_mariadb_alone(
    connector: str, value: str | None, sure: bool
) -> None:
    """MariaDB's log omits the zeros at the end of a UUID, and Debezium adds them at the front."""
    source = {"connector": connector, "sequence": '["1","2"]', "file": "binlog.000001", "pos": 4, "snapshot": "false"}
    table = TableDescription(("id",), ("body",), {"uuid": Kind.UUID}, None, None)
    changed = decoded(change("c", None, row(uuid=value), source=source), table)
    assert (changed.incomplete, changed.content is not None) == (not sure, sure)
