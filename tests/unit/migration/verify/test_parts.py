"""The verifier's smaller parts: its share of a core, pages in bytes, its memory of points, the report and its page."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from domain.comparison import Difference, Disagreement, wrong_vectors
from domain.points import StoredChunk, vector_checksums
from migration.verify.digests import Digests, Part
from migration.verify.orphans import Seen
from migration.verify.ranges import Pages
from migration.verify.result import Sample, Verification
from migration.verify.tally import Reservoir, count
from migration.verify.throttle import Throttle
from operations.render.verification import document_of, line_of
from operations.render.verification_page import page_of
from schemas.keys import packed_id, point_hash, point_id
from schemas.tasks import RangeProof


def test_a_throttle_owes_what_is_above_its_share() -> None:
    used, now = [0.0], [0.0]
    throttle = Throttle(0.05, used_s=lambda: used[0], now_s=lambda: now[0])
    assert throttle.owed_s() == 0
    used[0] = 1.0
    assert throttle.owed_s() == pytest.approx(20)
    now[0] = 15.0
    assert throttle.owed_s() == pytest.approx(5)
    now[0] = 30.0
    assert throttle.owed_s() == 0
    assert Throttle(None, used_s=lambda: used[0]).owed_s() == 0


def test_pages_grow_while_documents_are_short_and_shrink_when_they_are_long() -> None:
    pages = Pages(1000)
    limits = []
    for _ in range(4):
        limits.append(pages.limit)
        pages.saw(pages.limit, pages.limit * 300)
    assert limits == [64, 256, 1000, 1000]
    pages.saw(1000, 1000 << 20)
    assert pages.limit == 8
    pages.saw(8, 8 << 30)
    assert pages.limit == 1
    assert Pages(1000, pages.next_first).limit == 1


def packed(*documents: str, chunk: int = 0) -> bytes:
    return b"".join(packed_id(point_id("docs", name, chunk)) for name in documents)


def hashes(*documents: str, chunk: int = 0) -> bytes:
    return b"".join(point_hash("docs", name, chunk) for name in documents)


def test_what_was_seen_is_remembered_up_to_a_bound() -> None:
    seen = Seen(most=6)
    assert seen.unknown(packed("a")) == (packed("a"), 0)
    seen.add(hashes("a", "b"), hashes("b", chunk=1))
    seen.add(hashes("d"), b"")
    assert seen.unknown(packed("d", "x", "a") + packed("a", "b", chunk=1)) == (packed("x") + packed("a", chunk=1), 2)
    seen.add(hashes("e", "f"), hashes("e", chunk=1))  # seven would exceed the bound
    assert seen.unknown(packed("a", "e")) == (packed("e"), 1)
    seen.add(hashes("h"), hashes("h", chunk=1))
    assert seen.unknown(packed("h", "a", "z") + packed_id("17") + packed("h", chunk=1)) == (
        packed("z") + packed_id("17"),
        2,
    )


def test_every_document_has_the_same_chance_to_be_in_the_sample() -> None:
    chosen: Counter[str] = Counter()
    for seed in range(400):
        reservoir = Reservoir(5, seed)
        for start in range(0, 50, 7):
            reservoir.offer([str(n) for n in range(start, min(50, start + 7))])
        assert len(set(reservoir.chosen)) == 5
        chosen.update(reservoir.chosen)
    assert len(chosen) == 50
    assert max(chosen.values()) < 4 * min(chosen.values())


@pytest.mark.parametrize("length", [1e-25, 1e-3, 1.0, 1e3, 1e25])
def test_given_embeddings_of_any_length_are_the_stored_unit_vectors(length: float) -> None:
    rng = np.random.default_rng(3)
    raw = rng.normal(size=(50, 384))
    given = (raw / np.linalg.norm(raw, axis=1)[:, None] * length).astype("<f4")
    units = (given.astype(np.float64) / np.linalg.norm(given.astype(np.float64), axis=1)[:, None]).astype("<f4")
    sums = vector_checksums([one.tobytes() for one in given])
    units[7, 3] += 0.00001
    units[9] = -units[9]
    points = [
        StoredChunk(0, 1, False, vector=unit.tobytes(), vector_checksum=None if n == 7 else along)
        for n, (unit, along) in enumerate(zip(units, sums, strict=True))
    ]
    assert wrong_vectors(points, [one.tobytes() for one in given], 384) == {7, 9}


def _difference(document_id: str) -> Difference:
    note = "wrong version: 3, the ledger says 5"
    return Difference(document_id, "stale", Disagreement.VERSION, None, 3, note=note)


def a_run(number: int = 1, differences: int = 3) -> Verification:
    run = Verification("articles", number, 1_000, 3_500, legacy_documents=10, vector_documents=9, rows_read=10)
    for n in range(differences):
        count(run, _difference(f"<script>{n}"), listed=2)
    run.pending, run.pending_ids, run.errors = 1, ["late & slow"], ["rows: <away>"]
    run.sample = Sample(5, 0, 0.99999)
    run.ranges = [
        RangeProof(after=None, upto="<b>", verdict="equal", proved_at_ms=900, rows=5),
        RangeProof(after="<b>", upto=None, verdict="different", proved_at_ms=1_100, rows=5),
    ]
    return run


def test_a_report_counts_every_difference_and_lists_some() -> None:
    document = document_of(a_run())
    assert (document["verdict"], document["differences"], len(document["listed"])) == ("different", 3, 2)
    assert (document["kinds"], document["reasons"]) == ({"stale": 3}, {"wrong version": 3})
    assert (document["oldest_at_ms"], document["seconds"], len(document["ranges"])) == (900, 2.5, 2)
    assert "3 differences (3 stale)" in line_of(a_run(), 10_900)
    assert "the proof is 10 s old" in line_of(a_run(), 10_900)


class Tags(HTMLParser):
    """Counts elements and checks that they are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("rounds", [1, 2, 60])
def test_the_page_is_whole_needs_nothing_else_and_shows_no_markup_of_documents(rounds: int) -> None:
    page = page_of([a_run(number, differences=number % 4) for number in range(1, rounds)] + [a_run(rounds)])
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.seen["script"] == tags.seen["link"] == tags.seen["img"] == tags.seen["b"] - 10 == 0
    assert not re.search(r"https?:|@import|url\(", page)
    assert "late &amp; slow" in page
    assert "&lt;script&gt;0" in page
    assert "rows: &lt;away&gt;" in page


def test_an_empty_run_has_a_page() -> None:
    assert "equal" in page_of([Verification("articles", ranges=[])])


def test_a_record_with_a_hole_is_none(tmp_path: Path) -> None:
    digests = Digests.of(tmp_path, "docs", "columns")
    whole = [Part(None, "f", "1-0", ["a"], bytes(16)), Part("f", "m", "1-0", ["g"], bytes(16))]
    for parts, read in ((whole, True), (whole[:1], False), (whole[1:], False), ([whole[0], whole[0]], False)):
        digests.write(1, None, "m", parts)
        assert (digests.read(1, None, "m") is not None) == read


def test_a_listed_difference_has_the_keys_that_programs_read() -> None:
    (listed, _) = document_of(a_run(differences=2), ranges=False)["listed"]
    assert listed == {
        "id": "<script>0",
        "kind": "stale",
        "detail": "wrong version: 3, the ledger says 5",
        "legacy_version": None,
        "vector_version": 3,
        "repairable": True,
    }
