"""Which dead letters of a document are superfluous: those that newer letters would overwrite completely."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from migration.dead_letters.superseded import Subject, in_order, older_letters, subject_of
from schemas.cloudevents import encode
from schemas.content import Content
from schemas.dead_letters import dead_letter, read_dead_letter
from schemas.documents import DocumentChanged, DocumentEmbedded, DocumentResolved, DocumentSubmitted, Event
from schemas.keys import version_of
from schemas.records import Received
from schemas.settings import Collection, EmbeddingColumn
from topics.catalogue import EMBEDDED, LOG, RESOLVED, SUBMITTED

DOCS = Collection(table="t", key=("id",), text=("title", "body"), metadata=("year",), tenant="owner")
OWN = DOCS.model_copy(update={"embedding": EmbeddingColumn(column="vec", format="float32")})
AT: dict[str, Any] = {"collection": "docs", "id": "1"}
GIVEN = Content(text={"title": "a"}, metadata={}, embedding=b"12345678")


def subject(topic: str, event: Event | None, number: int = 0, collection: Collection = DOCS) -> Subject:
    record = Received(topic, 0, number, b"docs/1", None, timestamp_ms=number + 1)
    if event is not None:
        sent = encode(event, topic=topic, key="docs/1", event_id="e", source="s", time_ms=0)
        value = event.model_dump_json(exclude_unset=True).encode() if topic == SUBMITTED else sent.value
        record = Received(topic, 0, number, sent.key, value, sent.headers, number + 1)
    kept = dead_letter(record, stage="x", error=ValueError("no"), attempt=1)
    letter = read_dead_letter(Received(kept.topic, 0, number, kept.key, kept.value, kept.headers, number + 1))
    found = subject_of(letter, collections={"docs": collection})
    assert found is not None
    return found


def resolved(*omitted: str, **fields: Any) -> DocumentResolved:
    return DocumentResolved(**AT, version=5, origin="producer", omitted=omitted, **fields)


def refresh(**fields: Any) -> DocumentChanged:
    return DocumentChanged(**AT, origin="refresh", **fields)


EVERYTHING = {"title": "", "body": ""}


@pytest.mark.parametrize(
    ("topic", "event", "names"),
    [
        (SUBMITTED, None, None),
        (SUBMITTED, DocumentSubmitted(**AT, text=EVERYTHING, metadata={"year": None}, tenant="t"), None),
        (SUBMITTED, DocumentSubmitted(**AT, text={"body": None}), {"body"}),
        (SUBMITTED, DocumentSubmitted(**AT, text=EVERYTHING, tenant="t", embedding=[1.0]), {*EVERYTHING, "owner", ""}),
        (RESOLVED, resolved(), None),
        (RESOLVED, resolved("body", "owner", content=GIVEN), {"title", "year", ""}),
        (RESOLVED, resolved("year", deleted=True), None),
        (LOG, DocumentChanged(**AT, origin="producer", omitted=("year", "title")), {"body", "owner"}),
        (LOG, refresh(content=GIVEN), None),
        (LOG, refresh(rejects=7, incomplete=True), set()),
        (LOG, DocumentChanged(**AT, origin="legacy", after_version=7), set()),
        (EMBEDDED, DocumentEmbedded(**AT, version=5, origin="producer", metadata={"year": 1}), None),
        (EMBEDDED, DocumentEmbedded(**AT, version=5, origin="producer"), {*EVERYTHING, "owner", ""}),
    ],
)
def test_what_a_letter_names(topic: str, event: Event | None, names: set[str] | None) -> None:
    assert subject(topic, event).names == names


def test_an_embedding_that_has_a_column_is_named_by_it() -> None:
    given = DocumentSubmitted(**AT, text=EVERYTHING, tenant="t", embedding=[1.0])
    assert subject(SUBMITTED, given, collection=OWN).names == frozenset({*EVERYTHING, "owner", "vec"})


def test_a_letter_of_an_unknown_collection_counts_as_a_whole_document() -> None:
    unknown = DocumentSubmitted(collection="other", id="1", text={"body": ""})
    assert subject(SUBMITTED, unknown).names is None


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        ([{"a"}, {"b"}], {}),
        ([{"a"}, {"a", "b"}], {0: 1}),
        ([{"a", "b"}, {"a"}], {}),
        ([{"a"}, None, {"b"}], {0: 1}),
        ([None, {"a"}], {}),
        ([None, None], {0: 1}),
        ([set(), {"a"}], {0: 1}),
        ([{"a"}, set()], {}),
        ([{"a"}, {"b"}, {"a"}, {"b"}], {0: 2, 1: 3}),
    ],
)
def test_a_letter_is_left_out_where_a_newer_one_names_all_that_it_names(
    names: list[set[str] | None], left_out: dict[int, int]
) -> None:
    places = [("t", 0, number) for number in range(len(names))]
    every = [
        Subject(place, place, b"docs/1", number, names=None if one is None else frozenset(one))
        for place, one, number in zip(places, names, count())
    ]
    found = {letter[2]: newer.letter[2] for letter, newer in older_letters(reversed(every)).items()}
    assert found == left_out


def test_letters_of_one_partition_come_in_its_order_whatever_the_clocks_of_producers_say() -> None:
    """A recreated topic begins at offset 0 again. Letters with versions are ordered in the same way."""
    ahead, first, second, third = 900, 100, 200, 300
    submitted = [
        Subject(("t", 0, 0), (SUBMITTED, 0, 7), b"a", ahead),
        Subject(("t", 0, 1), (SUBMITTED, 0, 8), b"a", first),
        Subject(("t", 0, 2), (SUBMITTED, 0, 1), b"a", second, epoch=2),
    ]
    of_another = Subject(("t", 0, 3), (SUBMITTED, 1, 0), b"a", third)
    assert [one.letter[2] for one in in_order([*reversed(submitted), of_another])] == [3, 0, 1, 2]
    versions = [
        Subject(("t", 0, number), (RESOLVED, 0, 9 - number), b"a", time_ms, version)
        for number, (time_ms, version) in enumerate([(ahead, version_of(1, 500)), (first, version_of(2, 3))])
    ]
    assert [one.letter[2] for one in in_order(reversed(versions))] == [0, 1]


def test_letters_of_a_document_that_has_several_come_in_the_order_of_their_changes() -> None:
    def one(key: bytes, number: int) -> Subject:
        return Subject(("t", 0, number), ("s", 0, number), key, number)

    assert [each.letter[2] for each in in_order([one(b"a", 3), one(b"b", 2), one(b"a", 1)])] == [1, 3]
