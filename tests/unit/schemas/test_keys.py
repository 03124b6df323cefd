"""The names of a document convert in both directions: record key, row key, point id, version."""

from __future__ import annotations

from uuid import UUID, uuid5

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.keys import (
    EPOCH_SHIFT,
    LAST_EPOCH,
    POINT_NAMESPACE,
    document_key,
    join_key,
    packed_id,
    parse_key,
    parse_point_id,
    point_hash,
    point_id,
    split_key,
    unpacked_ids,
    version_of,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
COLLECTION = st.from_regex(r"\A[a-z][a-z0-9_-]{0,20}\Z")


@given(collection=COLLECTION, document_id=TEXT.filter(bool))
def test_a_record_key_is_read_back(collection: str, document_id: str) -> None:
    assert parse_key(document_key(collection, document_id).encode()) == (collection, document_id)


@pytest.mark.parametrize("key", [b"", b"docs", b"/1", b"docs/", b"\xff/1"])
def test_a_key_that_names_no_document_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - two classes of error, both ValueError
        parse_key(key)


@given(values=st.lists(TEXT, min_size=1, max_size=4))
def test_a_row_key_is_read_back(values: list[str]) -> None:
    assert split_key(join_key(values), len(values)) == tuple(values)


@given(first=st.lists(TEXT, min_size=2, max_size=2), second=st.lists(TEXT, min_size=2, max_size=2))
def test_two_rows_never_share_an_id(first: list[str], second: list[str]) -> None:
    assume(first != second)
    assert join_key(first) != join_key(second)


@given(document_id=st.text(st.sampled_from("a%2fF1/é~ "), max_size=8))
def test_an_id_is_split_only_if_it_is_the_one_spelling_of_its_row(document_id: str) -> None:
    try:
        parts = split_key(document_id, 2)
    except ValueError:
        return
    assert join_key(parts) == document_id


@pytest.mark.parametrize(
    ("document_id", "columns", "message"),
    [
        ("a\x00b", 1, "NUL"),
        ("a%00b/c", 2, "NUL"),
        ("a/b/c", 2, "3 parts, the key of the table has 2 columns"),
        ("a", 2, "1 parts"),
        ("%61/b", 2, "percent-encoded"),
        ("a%2fb/c", 2, "percent-encoded"),
        ("a b/c", 2, "percent-encoded"),
        ("%FF/c", 2, "percent-encoded"),
        ("é/c", 2, "percent-encoded"),
    ],
)
def test_an_id_that_is_no_row_key_is_refused(document_id: str, columns: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_key(document_id, columns)


def test_the_id_of_a_row_with_one_key_column_is_its_value_as_it_is() -> None:
    assert join_key(["a/b %41"]) == "a/b %41"
    assert split_key("a/b %41", 1) == ("a/b %41",)
    assert join_key(["a/b", "100%"]) == "a%2Fb/100%25"


def test_a_point_id_is_a_uuid5_that_depends_on_collection_document_and_chunk_only() -> None:
    ids = {point_id(collection, name, chunk) for collection in "ab" for name in ("1", "2") for chunk in (0, 1)}
    assert len(ids) == 8
    assert {UUID(one).version for one in ids} == {5}
    # Existing collections store this value. Another one would leave their points without an owner.
    assert point_id("docs", "1", 0) == "2a8a5650-bcaa-5580-a5de-da2fd15f1791"


@given(document_id=st.text(min_size=1), chunk=st.integers(0, 10**6))
def test_a_point_id_is_what_the_library_makes_of_its_name(document_id: str, chunk: int) -> None:
    assert point_id("docs", document_id, chunk) == str(uuid5(POINT_NAMESPACE, f"docs/{document_id}#{chunk}"))


@given(TEXT, st.integers(0, 2**31))
def test_the_hash_of_a_point_is_the_second_half_of_its_id_but_for_the_variant(document_id: str, chunk: int) -> None:
    half = int.from_bytes(UUID(point_id("docs", document_id, chunk)).bytes[8:], "big")
    assert int.from_bytes(point_hash("docs", document_id, chunk), "big") % 2**62 == half % 2**62


@given(st.lists(st.one_of(st.uuids(version=5), st.integers(0, 2**64 - 1))))
def test_packed_point_ids_are_read_back(ids: list[UUID | int]) -> None:
    assert unpacked_ids(b"".join(map(packed_id, ids))) == ids
    assert [parse_point_id(str(each)) for each in ids] == ids


@given(
    epochs=st.tuples(st.integers(1, LAST_EPOCH), st.integers(1, LAST_EPOCH)),
    offsets=st.tuples(st.integers(0, 2**EPOCH_SHIFT - 1), st.integers(0, 2**EPOCH_SHIFT - 1)),
)
def test_versions_compare_as_epoch_and_offset_and_are_exact_as_floats(
    epochs: tuple[int, int], offsets: tuple[int, int]
) -> None:
    one, other = (version_of(epochs[n], offsets[n]) for n in (0, 1))
    assert (one < other) == ((epochs[0], offsets[0]) < (epochs[1], offsets[1]))
    assert 0 < one == int(float(one)) < 2**53


@pytest.mark.parametrize(("epoch", "offset"), [(0, 1), (LAST_EPOCH + 1, 0), (1, -1), (1, 2**EPOCH_SHIFT)])
def test_a_version_out_of_bounds_is_an_error(epoch: int, offset: int) -> None:
    with pytest.raises(ValueError, match="is not in"):
        version_of(epoch, offset)
