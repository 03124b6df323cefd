"""What `inspect` concludes about a document: its verdict, its reasons, and what it shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from msgspec import structs
from rich.console import Console

from domain.comparison import checksum_of
from domain.ledger import LedgerRow
from domain.legacy import LegacyRow
from domain.points import StoredChunk, vector_checksums
from domain.quarantine import Quarantine, Reason
from migration.inspect.document import Document, Entry, Letter, LogPart, Stores, Waiting, place_of
from migration.inspect.explain import checks_of, explain
from operations.render.document import document_of, page
from schemas.content import Content, content_hash
from schemas.keys import version_of

NOW_MS = 1_700_000_000_000
CONTENT = Content(text={"title": "t", "body": "a body " * 20}, metadata={"year": 7})
HASH = content_hash(CONTENT)
V1, V2 = version_of(1, 4711), version_of(1, 4800)
ROW = LegacyRow("7", None, CONTENT)


def point(chunk: int = 0, *, version: int = V1, hashed: str = HASH, **changes: Any) -> StoredChunk:
    """Return a sound point. `changes` are applied afterwards, without new checksums."""
    vector = np.eye(1, 8, chunk, dtype="<f4").tobytes()
    (along,) = vector_checksums([vector])
    sound = StoredChunk(
        chunk, version, False, hashed, "default", "m", None, along, "text [of] a chunk", {"year": 7}, vector
    )
    return structs.replace(structs.replace(sound, checksum=checksum_of("7", sound)), **changes)


def tombstone(version: int = V2) -> StoredChunk:
    return StoredChunk(0, version, True, None, "default", "m", text="", metadata={})


def entry(version: int = V1, hashed: str | None = HASH, *, deleted: bool = False, origin: str = "legacy") -> Entry:
    return Entry(1, version & 0xFFFF, version, origin, deleted, False, False, None, None, hashed, NOW_MS - 9000)


def document(row: LegacyRow | None, *points: StoredChunk, **changes: Any) -> Document:
    stores = Stores(row, LedgerRow(vector_version=points[0].version if points else 0), points)
    whole = Document("docs", "7", "dual_write", NOW_MS, stores, log=LogPart(1, (entry(),), 0, 5000))
    return replace(whole, **changes)


WAITING = (Waiting("resolver", "crossfade.documents.log.v1", 1, 4800, NOW_MS - 2000),)
LETTER = Letter("crossfade.documents.resolved.v1", 0, 3, "legacy", "Refused", "a constraint", NOW_MS - 1000, False)
CUT = LogPart(1, (), 900, 5000, "it begins at offset 900 (--log-records reads more)")


@pytest.mark.parametrize(
    ("found", "verdict", "expected"),
    [
        (document(ROW, point()), "equal", "hold the same"),
        (document(ROW, point(version=0)), "equal", "hold the same"),
        (document(None), "absent", "Neither"),
        (document(None, tombstone()), "absent", "Neither"),
        (document(ROW), "missing", "Qdrant does not"),
        (document(ROW, tombstone()), "missing", "every role has passed it"),
        (document(None, point()), "ghost", "the log does not have the row's deletion"),
        (
            document(None, point(), log=LogPart(1, (entry(V2, None, deleted=True),), 0, 5000)),
            "ghost",
            "The log has its deletion at 1:4800, and Qdrant did not take it",
        ),
        (document(ROW, point(hashed="other")), "stale", "content hash (the row is at -, Qdrant at 1:4711)"),
        (document(ROW, point(hashed="other")), "stale", "The log has the row's content at 1:4711"),
        (
            document(ROW, point(hashed="other"), log=LogPart(1, (entry(V1, "other"),), 0, 5000)),
            "stale",
            "capture did not see it, or has not read it yet",
        ),
        (document(ROW, point(hashed="other"), log=CUT), "stale", "it begins at offset 900"),
        (document(ROW, point(), point(2)), "stale", "chunk missing"),
        (document(ROW, point(text="forged")), "stale", "Chunk 0: its payload is not the one that crossfade wrote"),
        (
            document(ROW, point(vector=point(3).vector)),
            "stale",
            "Chunk 0: its vector is not the one that crossfade wrote",
        ),
        (document(ROW, point(vector=point(3).vector)), "stale", "wrong vector of chunk 0"),
        (document(ROW, point(), model=1), "stale", "wrong model"),
        (document(ROW, point(hashed="other"), waiting=WAITING), "pending", "resolver has not finished"),
        (document(ROW, point(hashed="other"), waiting=WAITING), "pending", "written 2.0 s ago"),
        (document(ROW, point(), waiting=WAITING), "pending", "A change is in flight"),
        (document(ROW, point(), letters=(LETTER,)), "equal", "--partition 0 --offset 3"),
        (document(ROW, point(hashed="x"), phase="off"), "stale", "The phase off leaves Qdrant as it is"),
        (
            document(ROW, point(hashed="x"), quarantine=Quarantine("docs", Reason.CAPTURE_LOST)),
            "stale",
            "Remedy: crossfade recapture docs",
        ),
        (document(None, unread={"row": "nobody answers"}), "unknown", "Not read: row: nobody answers"),
        (document(ROW, unread={"points": "nobody answers"}), "unknown", "Not read: points"),
        (document(ROW, point(), unread={"log": "nobody answers"}), "equal", "Not read: log"),
    ],
)
def test_verdict_and_reason(found: Document, verdict: str, expected: str) -> None:
    explanation = explain(found)
    assert explanation.verdict == verdict
    assert expected.lower() in " ".join(explanation.messages).lower()


def test_a_repair_is_named_only_for_what_differs_and_is_not_under_way() -> None:
    repair = "crossfade verify docs --repair"
    assert repair in " ".join(explain(document(ROW)).messages)
    assert repair not in " ".join(explain(document(ROW, waiting=WAITING)).messages)
    assert repair not in " ".join(explain(document(ROW, point())).messages)


def test_a_letter_that_was_replayed_is_no_reason() -> None:
    assert "dead letter" not in " ".join(explain(document(ROW, letters=(replace(LETTER, replayed=True),))).messages)


def test_an_embedding_of_the_row_is_held_against_the_point() -> None:
    brought = replace(ROW, content=CONTENT.model_copy(update={"embedding": point().vector}))
    stored = structs.replace(point(), model="m (given)")
    stored = structs.replace(stored, checksum=checksum_of("7", stored))

    def first(row: LegacyRow, kept: StoredChunk) -> str:
        return explain(document(row, kept, brings=True)).messages[0]

    assert "hold the same" in first(brought, stored)
    assert "computed, the row brings one" in first(brought, point())
    assert "given, the row brings none" in first(ROW, stored)
    other = replace(ROW, content=CONTENT.model_copy(update={"embedding": point(5).vector}))
    assert "wrong vector of chunk 0" in first(other, stored)
    assert explain(document(ROW, stored)).verdict == "equal", "a producer's embedding, in a table without a column"


def test_checks_of_a_point_tell_right_from_wrong_from_unknown() -> None:
    sound = checks_of("7", point())
    assert (sound.payload, sound.vector, sound.norm) == (True, True, 1.0)
    assert checks_of("7", point(metadata={"year": 8})).payload is False
    assert checks_of("8", point()).payload is False
    old = checks_of("7", point(checksum=None, vector_checksum=None))
    assert (old.payload, old.vector) == (None, None)
    assert checks_of("7", tombstone()).norm is None


def shown(found: Document, *, whole: bool = False) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115 - closed with the test
    console.print(page(found, explain(found), whole=whole))
    return console.export_text()


def test_text_is_shortened_unless_it_is_asked_for() -> None:
    found = document(ROW, point())
    assert str(CONTENT.text["body"]) not in shown(found)
    assert "(140 characters)" in shown(found)
    plain = document_of(found, explain(found), whole=False)
    assert plain["row"]["text"]["body"].endswith("… (140 characters)")
    assert document_of(found, explain(found), whole=True)["row"]["text"] == CONTENT.text


@pytest.mark.parametrize(
    "expected",
    [
        "docs/7  pending",
        "1:4711",
        HASH,
        "text [of] a chunk",
        "wrong",
        "2023-11-14 22:13:11.000Z",
        "Refused: a constraint",
        "log, partition 1, offsets 0 to 5000",
        "under way: only some were searched",
    ],
)
def test_the_page_says(expected: str) -> None:
    found = document(ROW, point(metadata={}), waiting=WAITING, letters=(LETTER,))
    assert expected in shown(replace(found, cut={"under way": "only some were searched"}))


def test_the_page_of_nothing_says_what_is_not_there_and_what_was_not_read() -> None:
    expected = shown(Document("docs", "7", "dual_write", NOW_MS, unread={"kafka": "nobody", "points": "nothing"}))
    for line in ("row: no row", "ledger: no row", "points in Qdrant: not read: nothing", "log: not read: nobody"):
        assert line in expected


def test_the_document_is_json_and_names_everything() -> None:
    found = document(ROW, point(), waiting=WAITING, letters=(LETTER,), quarantine=Quarantine("docs", Reason.MODEL))
    shown = orjson.loads(orjson.dumps(document_of(found, explain(found), whole=False)))
    assert (shown["verdict"], shown["row"]["content_hash"], shown["points"][0]["version"]) == (
        "pending",
        HASH,
        V1,
    )
    assert (shown["points"][0]["payload_right"], shown["points"][0]["vector_right"]) == (True, True)
    assert shown["log"]["entries"][0]["offset"] == 4711
    assert shown["under_way"][0]["role"] == "resolver"
    assert shown["dead_letters"][0]["message"] == "a constraint"
    assert shown["stopped"]["reason"] == "model"


def test_a_version_is_shown_as_its_place_in_the_log() -> None:
    assert [place_of(version) for version in (None, 0, V1, version_of(3, 0))] == ["-", "-", "1:4711", "3:0"]


def test_a_text_that_is_too_long_for_qdrant_is_named_and_no_repair_is_proposed() -> None:
    found = document(ROW, max_text_bytes=20)
    assert explain(document(ROW)).verdict == explain(found).verdict == "missing"
    assert "verify docs --repair" in " ".join(explain(document(ROW)).messages)
    assert "verify docs --repair" not in " ".join(explain(found).messages)
