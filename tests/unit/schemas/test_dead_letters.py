"""A dead letter keeps the original record and says why it failed."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.cloudevents import InvalidEvent
from schemas.dead_letters import ERROR_HEADERS, ERROR_MESSAGE, SUFFIX, dead_letter, read_dead_letter
from schemas.records import Headers, Outgoing, Received, size_of
from topics.catalogue import DEAD_LETTER_SUFFIX
from topics.provisioning import DEAD_LETTER_HEADER_BYTES

NAMES = st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=8)
HEADERS = st.lists(st.tuples(NAMES, st.binary(max_size=8)), max_size=4).map(tuple)


def as_read(sent: Outgoing) -> Received:
    return Received(sent.topic, 0, 5, sent.key, sent.value, sent.headers)


@given(key=st.none() | st.binary(min_size=1, max_size=9), value=st.none() | st.binary(max_size=9), headers=HEADERS)
def test_key_value_and_headers_come_back_as_they_were(key: bytes | None, value: bytes | None, headers: Headers) -> None:
    record = Received("source", 3, 41, key, value, headers)
    letter = read_dead_letter(as_read(dead_letter(record, stage="intake", error=InvalidEvent("bad"), attempt=2)))
    assert letter.original == Outgoing("source", key, value, headers)
    assert (letter.partition, letter.offset, letter.stage, letter.message, letter.attempt) == (
        3,
        41,
        "intake",
        "bad",
        2,
    )
    assert letter.error_class == "schemas.cloudevents.InvalidEvent"


def test_a_letter_goes_to_its_sources_dead_letter_topic() -> None:
    assert (
        dead_letter(Received("source", 0, 0, b"k", b"v"), stage="s", error=ValueError(), attempt=1).topic
        == "source-dlt"
    )
    assert SUFFIX == DEAD_LETTER_SUFFIX


def test_the_trace_context_is_left_out() -> None:
    record = Received("source", 0, 0, b"k", b"v", (("traceparent", b"00-a"), ("tracestate", b"b"), ("ce_id", b"1")))
    names = [name for name, _ in dead_letter(record, stage="s", error=ValueError(), attempt=1).headers]
    assert "ce_id" in names
    assert not {"traceparent", "tracestate"} & set(names)


def test_a_record_that_fails_again_carries_the_newest_error_once() -> None:
    first = dead_letter(Received("source", 0, 0, b"k", b"v"), stage="s", error=ValueError("old"), attempt=1)
    again = Received("source", 0, 9, b"k", b"v", first.headers)
    second = dead_letter(again, stage="s", error=ValueError("new"), attempt=1)
    names = [name for name, _ in second.headers]
    assert sorted(names) == sorted(ERROR_HEADERS)
    assert read_dead_letter(as_read(second)).message == "new"
    assert read_dead_letter(as_read(second)).offset == 9


def test_the_headers_fit_next_to_the_largest_record() -> None:
    record = Received("source", 0, 0, b"k", b"v")
    sent = dead_letter(record, stage="s", error=ValueError("ü" * 1_000_000), attempt=1)
    assert size_of(sent) < DEAD_LETTER_HEADER_BYTES
    assert dict(sent.headers)[ERROR_MESSAGE].decode("utf-8", "replace").startswith("ü")


@pytest.mark.parametrize("headers", [(), (("__connect.errors.topic", b"t"),)])
def test_a_record_that_does_not_say_where_it_came_from_is_no_dead_letter(headers: Headers) -> None:
    with pytest.raises(InvalidEvent):
        read_dead_letter(Received("x-dlt", 0, 0, b"k", b"v", headers))


def test_a_header_that_is_no_number_is_reported() -> None:
    sent = dead_letter(Received("source", 0, 0, b"k", b"v"), stage="s", error=ValueError(), attempt=1)
    broken = tuple((name, b"x" if name.endswith("offset") else value) for name, value in sent.headers)
    with pytest.raises(InvalidEvent, match="not a number"):
        read_dead_letter(Received("x-dlt", 0, 0, b"k", b"v", broken))


SIZES = st.integers(0, 200_000)


@given(key=SIZES, value=SIZES, headers=st.lists(SIZES, max_size=5), limit=st.integers(64 * 1024, 300_000))
def test_a_letter_of_any_record_fits_and_says_what_is_cut(key: int, value: int, headers: list[int], limit: int) -> None:
    original = tuple([(f"h{number}", bytes(size)) for number, size in enumerate(headers)])
    record = Received("source", 3, 41, b"k" * key, b"v" * value, original)
    sent = dead_letter(record, stage="s", error=ValueError("e" * 9000), attempt=1, limit=limit)
    assert size_of(sent) <= limit
    letter = read_dead_letter(as_read(sent))
    assert (letter.original.topic, letter.partition, letter.offset) == ("source", 3, 41)
    whole = dead_letter(record, stage="s", error=ValueError("e" * 9000), attempt=1)
    if size_of(whole) <= limit:
        assert sent == whole
        return
    parts = {"key": (record.key, letter.original.key), "value": (record.value, letter.original.value)}
    for name, (was, kept) in parts.items():
        assert was is not None
        assert kept is not None
        assert was.startswith(kept)
        expected = None if was == kept else {"bytes": len(was), "sha256": sha256(was).hexdigest()}
        assert letter.cut.get(name) == expected
    assert original[: len(letter.original.headers)] == letter.original.headers
    assert ("headers" in letter.cut) == (letter.original.headers != original)


def test_what_nobody_could_read_says_how_many_records_it_stands_for() -> None:
    record = Received("source", 3, 41, None, b"packed", unread="its checksum is wrong", records=7)
    letter = read_dead_letter(as_read(dead_letter(record, stage="s", error=ValueError(), attempt=1)))
    assert (letter.unread, letter.offset, letter.original.value) == (7, 41, b"packed")
