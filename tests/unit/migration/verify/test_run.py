"""Verification over in-memory stores: what it finds, each once, what it never reports, and what it reads again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from connectors.embedding.memory import HashingEmbedder
from connectors.memory.checksums import MemoryChecksums
from connectors.memory.legacy import MemoryBulk, MemoryLegacy
from domain.legacy import LegacyRow, TableDescription
from domain.points import DocumentPoints, chunks_of
from migration.verify.digests import Digests
from migration.verify.resample import sample
from schemas.cloudevents import decode
from schemas.content import Content, content_hash
from schemas.documents import DifferenceFound, DocumentChanged
from schemas.values import Kind
from tests.contract.vector_stores import vector
from tests.unit.migration.verify.place import NAME, Place, kinds
from topics.catalogue import DIFFERENCES, LOG


@pytest.mark.parametrize("page", [1, 3, 100])
async def test_equal_stores_have_no_difference_whatever_the_page(place: Place, page: int) -> None:
    run = await place.verify(page)
    assert (run.legacy_documents, run.vector_documents, run.found) == (10, 10, 0)


@pytest.mark.parametrize("page", [1, 2, 100])
async def test_each_difference_is_found_once_and_published(place: Place, page: int) -> None:
    place.legacy.write_directly("new", Content(text={"body": "only in the table"}))
    place.legacy.write_directly("d4", Content(text={"body": "changed"}, metadata={"year": 2024}))
    place.legacy.write_directly("d5", Content(text={"body": "text"}, metadata={"year": 1999}))
    place.legacy.delete_directly("d1")
    await place.point("ghost", chunks=5)
    run = await place.verify(page)
    assert kinds(run) == {"new": "missing", "d4": "stale", "d5": "stale", "d1": "ghost", "ghost": "ghost"}
    assert run.found == 5
    reported = [decode(record, DifferenceFound)[0] for record in place.bus.records(DIFFERENCES)]
    assert sorted((event.id, event.kind) for event in reported) == sorted(kinds(run).items())


async def test_a_point_that_names_no_document_is_unknown_and_stops_nothing(place: Place) -> None:
    place.foreign()
    await place.point("ghost")
    run = await place.verify(3, repair=True)
    assert (run.verdict, kinds(run), run.unknown, run.repaired) == ("different", {"ghost": "ghost"}, 1, 1)
    assert run.errors[0].startswith("points of no document: 1: ")
    place.lose("ghost")
    assert (await place.verify()).verdict == "unknown"


async def test_a_repair_appends_a_refresh_for_each_difference(place: Place) -> None:
    place.legacy.write_directly("d4", Content(text={"body": "changed"}, metadata={"year": 2024}))
    await place.point("ghost", chunks=2)
    run = await place.verify(1, repair=True)
    entries = [decode(record, DocumentChanged)[0] for record in place.bus.records(LOG)]
    assert {(entry.id, entry.origin, entry.deleted) for entry in entries} == {
        ("d4", "refresh", False),
        ("ghost", "refresh", True),
    }
    assert (len(entries), run.repaired) == (2, 2)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (Content(text={"body": "x" * 21}), "text too long: 21 bytes, kafka.max_text_bytes is 20"),
        (Content(text={"body": "x"}, tenant="t" * 129), "tenant too long: 129 characters, the limit is 128"),
    ],
    ids=["text", "tenant"],
)
async def test_what_qdrant_has_no_place_for_is_reported_each_time_and_repaired_never(
    place: Place, given: Content, why: str
) -> None:
    place.max_text_bytes = 20
    place.legacy.write_directly("long", given)
    for _ in range(2):
        run = await place.verify(3, repair=True)
        assert (run.verdict, kinds(run), run.repaired) == ("different", {"long": "missing"}, 0)
        assert run.differences[0].detail == why
    assert place.bus.records(LOG) == []
    await place.point("long", "what it was before")
    run = await place.verify(3, repair=True)
    assert (kinds(run), run.repaired) == ({"long": "stale"}, 1)


CORRUPTIONS: dict[str, tuple[Callable[[Place], None], str, str]] = {
    "missing": (lambda place: place.lose("d3"), "missing", "no visible point"),
    "content hash": (lambda place: place.damage("d3", content_hash="another"), "stale", "content hash"),
    "vector": (lambda place: place.damage("d3", vector=vector(0, 1, 0, 0)), "stale", "wrong vector"),
    "no vector": (lambda place: place.damage("d3", vector=None), "stale", "wrong vector"),
    "vector of another length": (lambda place: place.damage("d3", vector=vector(1, 0)), "stale", "wrong vector"),
    "vector that is no number": (
        lambda place: place.damage("d3", vector=vector(float("nan"), 0, 0, 0)),
        "stale",
        "wrong vector",
    ),
    "text": (lambda place: place.damage("d3", text="edited"), "stale", "wrong payload"),
    "metadata": (lambda place: place.damage("d3", metadata={"year": 1}), "stale", "wrong payload: metadata"),
    "tenant": (lambda place: place.damage("d3", tenant="other"), "stale", "wrong payload: tenant"),
    "model": (lambda place: place.damage("d3", model="other@1"), "stale", "wrong payload"),
    "version": (lambda place: place.damage("d3", version=9), "stale", "wrong payload"),
    "version of one chunk": (lambda place: place.damage("d5", 1, version=9), "stale", "chunks of 2 versions"),
    "duplicate chunk": (lambda place: place.double("d3"), "stale", "duplicate chunk"),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
async def test_a_corrupted_point_is_found_whether_rows_are_read_or_not(place: Place, tmp_path: Path, name: str) -> None:
    place.checksums = MemoryChecksums(place.legacy)
    digests = Digests.of(tmp_path, NAME, "memory")
    corrupt, kind, detail = CORRUPTIONS[name]
    assert (await place.verify(digests=digests)).verdict == "equal"
    corrupt(place)
    for full in (False, True):
        run = await place.verify(digests=digests, full=full)
        assert [(d.id, d.kind, d.detail) for d in run.differences] == [("d5" if "one" in name else "d3", kind, detail)]


async def test_a_point_without_checksums_is_unknown_and_is_written_again_by_a_repair(place: Place) -> None:
    place.damage("d3", checksum=None)
    run = await place.verify()
    assert (run.verdict, run.unchecked, run.found) == ("unknown", 1, 0)
    await place.verify(repair=True)
    assert [decode(record, DocumentChanged)[0].id for record in place.bus.records(LOG)] == ["d3"]


async def test_rows_are_not_read_again_while_their_checksum_stays(place: Place, tmp_path: Path) -> None:
    place.checksums = MemoryChecksums(place.legacy)
    digests = Digests.of(tmp_path, NAME, "memory")
    assert (await place.verify(digests=digests)).rows_read == 10
    assert (await place.verify(digests=digests)).rows_read == 0
    await place.put("d3", "changed", version=2)
    run = await place.verify(digests=digests)
    assert (run.verdict, run.legacy_documents, run.rows_read) == ("equal", 10, 4)
    assert (await place.verify(digests=digests)).rows_read == 0
    assert (await place.verify(digests=digests, full=True)).rows_read == 10


async def test_a_damaged_record_is_no_record(place: Place, tmp_path: Path) -> None:
    place.checksums = MemoryChecksums(place.legacy)
    digests = Digests.of(tmp_path, NAME, "memory")
    await place.verify(digests=digests)
    for file in digests.folder.iterdir():
        file.write_bytes(file.read_bytes()[:-5])
    assert (await place.verify(digests=digests)).rows_read == 10
    other = Digests.of(tmp_path, NAME, "other columns")
    assert (await place.verify(digests=other)).rows_read == 10


async def test_a_change_between_checksum_and_rows_does_not_hide(place: Place, tmp_path: Path) -> None:
    """The row that is read has changed since its checksum was taken. The next run finds that Qdrant differs from it."""
    place.checksums = MemoryChecksums(place.legacy)
    digests = Digests.of(tmp_path, NAME, "memory")

    class Late(MemoryBulk):
        async def scan_range(self, after: str | None, upto: str | None, limit: int) -> list[LegacyRow]:
            if not done:
                done.append(True)
                await place.put("d0", "new", version=2)
            return await super().scan_range(after, upto, limit)

    done: list[bool] = []
    place.bulk = Late(place.legacy)
    assert (await place.verify(digests=digests)).verdict == "equal"
    place.bulk = None
    await place.point("d0", "text", version=3)
    assert kinds(await place.verify(digests=digests)) == {"d0": "stale"}


async def test_what_is_under_way_is_pending_and_not_different(place: Place) -> None:
    async def blocked(_: float) -> bool:
        return False

    place.legacy.write_directly("new", Content(text={"body": "only in the table"}))
    place.barrier = blocked
    run = await place.verify()
    assert (run.verdict, run.pending, run.pending_ids, run.found) == ("pending", 1, ["new"], 0)
    assert place.bus.records(DIFFERENCES) == []


async def test_what_arrives_while_it_is_under_way_is_settled(place: Place) -> None:
    async def arriving(_: float) -> bool:
        await place.point("new", "only in the table")
        return True

    place.legacy.write_directly("new", Content(text={"body": "only in the table"}, metadata={"year": 2024}))
    place.barrier = arriving
    run = await place.verify()
    assert (run.verdict, run.settled) == ("equal", 1)


async def test_a_document_that_moves_all_the_time_is_no_difference_while_its_changes_arrive(place: Place) -> None:
    turns = 0

    async def moving(_: float) -> bool:
        nonlocal turns
        turns += 1
        await place.point("d4", f"change {turns - 1}", version=turns + 1)
        place.legacy.write_directly("d4", Content(text={"body": f"change {turns}"}, metadata={"year": 2024}))
        return True

    place.legacy.write_directly("d4", Content(text={"body": "change 0"}, metadata={"year": 2024}))
    place.barrier = moving
    run = await place.verify()
    assert (run.verdict, run.settled, run.found) == ("equal", 1, 0)


async def test_a_document_that_moves_without_its_changes_arriving_is_pending(place: Place) -> None:
    turns = 0

    async def moving(_: float) -> bool:
        nonlocal turns
        turns += 1
        place.legacy.write_directly("d4", Content(text={"body": f"change {turns}"}, metadata={"year": 2024}))
        return True

    place.legacy.write_directly("d4", Content(text={"body": "change 0"}, metadata={"year": 2024}))
    place.barrier = moving
    assert (await place.verify()).verdict == "pending"


async def test_a_difference_that_stays_costs_its_own_row_and_no_other(place: Place, tmp_path: Path) -> None:
    place.checksums = MemoryChecksums(place.legacy)
    digests = Digests.of(tmp_path, NAME, "memory")
    place.damage("d3", text="edited")
    assert (await place.verify(digests=digests)).rows_read == 10
    for _ in range(2):
        run = await place.verify(digests=digests)
        assert (kinds(run), run.rows_read) == ({"d3": "stale"}, 1)
    await place.point("d3", version=2)
    assert [(await place.verify(digests=digests)).rows_read for _ in range(2)] == [1, 0]


async def test_a_wrong_vector_that_carries_its_own_checksum_is_seen_by_the_sample(place: Place) -> None:
    place.now_ms += 10**6
    embedder = HashingEmbedder(4)
    for number in range(10):
        texts = [f"text {n}" for n in range(2)]
        place.legacy.write_directly(f"d{number}", Content(text={"body": "text"}, metadata={"year": 2024}))
        pieces = (await embedder.chunked(["text"]))[0]
        vectors = await embedder.embed_documents(pieces)
        if number == 7:
            vectors = [vector(0, 0, 0, 1)] * len(pieces)
        await written(place, f"d{number}", pieces, vectors)
        assert texts
    assert (await place.verify()).verdict == "equal"
    run = await place.verify(resample=partial(sample, place.stores(), place.embedder))
    assert kinds(run) == {"d7": "stale"}
    assert run.differences[0].detail.startswith("wrong vector: cosine")
    assert (run.sample.documents, run.sample.wrong) == (10, 1)


async def written(place: Place, name: str, texts: Sequence[str], vectors: Sequence[bytes]) -> None:
    content = Content(text={"body": "text"}, metadata={"year": 2024})
    document = DocumentPoints(
        name, 9, "default", content_hash(content), "hashing@1", content.metadata, chunks_of(texts, vectors), (1, 2)
    )
    await place.vectors.write(NAME, [document])


async def test_a_given_embedding_is_compared_with_the_stored_vector_whatever_its_length() -> None:
    table = TableDescription(("id",), ("body",), {"year": Kind.INTEGER}, None, "e")
    place = Place(MemoryLegacy(NAME, table))
    await place.vectors.prepare(NAME, 4)
    for number, stored in enumerate([(3, 0, 4, 0), (0.6, 0, 0.8, 0), (0, 1, 0, 0), (0.6, 0, 0.80001, 0)]):
        content = Content(text={"body": "text"}, metadata={"year": 2024}, embedding=vector(3, 0, 4, 0))
        place.legacy.write_directly(f"g{number}", content)
        points = chunks_of(["text"], [vector(*stored)])
        document = DocumentPoints(
            f"g{number}", 0, "default", content_hash(content), "hashing@1 (given)", content.metadata, points, ()
        )
        await place.vectors.write(NAME, [document])
    run = await place.verify()
    assert {d.id: d.detail for d in run.differences} == {"g2": "wrong vector", "g3": "wrong vector"}


class Skipping(MemoryBulk):
    """Omits the first row of every page except the first and the last."""

    async def scan_range(self, after: str | None, upto: str | None, limit: int) -> list[LegacyRow]:
        rows = await super().scan_range(after, upto, limit + 1)
        return rows[1:] if after is not None and len(rows) > limit else rows[:limit]


class Behind(MemoryBulk):
    """Inserts a row into the part that was read already and deletes another, so that their number stays the same."""

    def __init__(self, store: MemoryLegacy) -> None:
        super().__init__(store)
        self.store = store

    async def scan_range(self, after: str | None, upto: str | None, limit: int) -> list[LegacyRow]:
        rows = await super().scan_range(after, upto, limit)
        if "d9" in self.store.stored:
            self.store.delete_directly("d9")
            self.store.write_directly("c", Content(text={"body": "late"}, metadata={"year": 2024}))
        return rows


@pytest.mark.parametrize("checksums", [True, False])
async def test_rows_that_no_page_brings_are_unknown_although_their_points_are_right(
    place: Place, tmp_path: Path, *, checksums: bool
) -> None:
    place.bulk = Skipping(place.legacy)
    place.checksums = MemoryChecksums(place.legacy) if checksums else None
    digests = Digests.of(tmp_path, NAME, "memory") if checksums else None
    for _ in range(2):
        run = await place.verify(1, digests=digests)
        assert (run.verdict, run.legacy_documents, run.found) == ("unknown", 10, 0)
        assert any("rows of the table were read by no page" in error for error in run.errors)
    place.bulk = None
    assert (await place.verify(1, digests=digests)).verdict == "equal"


async def test_a_row_that_came_in_behind_the_reading_is_compared_where_the_numbers_tell(place: Place) -> None:
    place.legacy.write_directly("b", Content(text={"body": "one more"}, metadata={"year": 2024}))
    await place.point("b", "one more")
    place.bulk = Behind(place.legacy)
    run = await place.verify(1)
    assert (run.unknown, run.errors) == (0, [])
    assert kinds(run) == {"d9": "ghost", "c": "missing"}


async def test_rows_whose_key_makes_no_document_are_named(place: Place) -> None:
    place.legacy.stored["x" * 513] = LegacyRow("x" * 513, None, Content(text={"body": "long"}))
    run = await place.verify()
    assert (run.verdict, run.legacy_documents) == ("unknown", 10)
    assert run.errors[0].startswith("rows whose key makes no document: 1: ")
