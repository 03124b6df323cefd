"""What a verification keeps of the ranges that it proved, how it goes on after a failure, and its rounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import stamina

from connectors.errors import Refused, StoreUnavailable
from connectors.memory.checksums import MemoryChecksums
from connectors.memory.legacy import MemoryBulk, MemoryLegacy
from domain.legacy import LegacyRow
from migration.verify.options import Bounds
from migration.verify.proof import Proof
from migration.verify.rounds import rounds
from schemas.content import Content
from schemas.tasks import HEADER, PROOF, ProofState, RangeProof
from tests.unit.migration.verify.place import Place, kinds

ONE_BY_ONE = Bounds(page=3, recheck_delay_s=0.0, recheck_timeout_s=0.05, range_rows=4, in_flight=1)


class Failing(MemoryBulk):
    """Fails `times` times to read the rows after a key."""

    def __init__(self, store: MemoryLegacy, after: str, times: int, error: Exception) -> None:
        super().__init__(store)
        self.after, self.times, self.error = after, times, error
        self.read: list[str | None] = []

    async def scan_range(self, after: str | None, upto: str | None, limit: int) -> list[LegacyRow]:
        self.read.append(after)
        if after == self.after and self.times:
            self.times -= 1
            raise self.error
        return await super().scan_range(after, upto, limit)


async def test_a_range_that_cannot_be_read_is_unknown_and_the_others_are_verified(place: Place) -> None:
    place.legacy.write_directly("d9", Content(text={"body": "changed"}))
    with stamina.set_testing(True, attempts=3):
        place.bulk = Failing(place.legacy, "d3", 100, StoreUnavailable("away"))
        run = await place.verify()
    assert (run.unknown, kinds(run), run.legacy_documents) == (1, {"d9": "stale"}, 6)
    assert "away" in run.errors[0]
    place.legacy.write_directly("d9", Content(text={"body": "text"}, metadata={"year": 2024}))
    with stamina.set_testing(True, attempts=3):
        place.bulk = Failing(place.legacy, "d3", 2, StoreUnavailable("away"))
        assert (await place.verify()).verdict == "equal"


async def test_a_run_that_was_cut_off_goes_on_with_what_it_had_not_proved(place: Place) -> None:
    place.bulk = Failing(place.legacy, "d7", 1, Refused("cut off"))
    with pytest.raises(Refused):
        await place.verify(bounds=ONE_BY_ONE)
    state = ProofState.model_validate_json(place.tasks.stored[PROOF][HEADER])
    assert (state.state, state.error) == ("failed", "cut off")
    place.bulk = again = Failing(place.legacy, "", 0, Refused(""))
    run = await place.verify(bounds=ONE_BY_ONE)
    assert (run.verdict, run.legacy_documents, run.resumed) == ("equal", 10, 2)
    assert again.read[0] == "d7"
    assert None not in again.read
    place.bulk = whole = Failing(place.legacy, "", 0, Refused(""))
    assert (await place.verify(bounds=ONE_BY_ONE)).resumed == 0
    assert whole.read[0] is None


async def test_a_kill_between_the_parts_of_a_divided_range_leaves_no_range_twice(place: Place) -> None:
    whole = await place.verify(bounds=ONE_BY_ONE)
    proof = await Proof.read(place.tasks)
    (first, second, third) = proof.chain()
    proof.keep(second.number, RangeProof(after=second.after, upto="d5", verdict="equal", proved_at_ms=1, rows=2))
    await proof.save(whole, 5, state="failed")
    run = await place.verify(bounds=ONE_BY_ONE)
    assert [(one.after, one.upto) for one in run.ranges] == [(None, "d3"), ("d3", "d5"), ("d5", "d9"), ("d9", None)]
    assert third.number not in [n for n, one in (await Proof.read(place.tasks)).ranges.items() if one.after == "d7"]
    assert (run.verdict, run.legacy_documents, first.upto) == ("equal", 10, "d3")


async def test_a_run_that_reads_every_row_does_not_go_on_with_one_that_did_not(place: Place) -> None:
    place.bulk = Failing(place.legacy, "d7", 1, Refused("cut off"))
    with pytest.raises(Refused):
        await place.verify(bounds=ONE_BY_ONE)
    assert (await place.verify(bounds=ONE_BY_ONE, full=True)).resumed == 0


async def test_a_restart_forgets_what_was_proved(place: Place) -> None:
    place.bulk = Failing(place.legacy, "d7", 1, Refused("cut off"))
    with pytest.raises(Refused):
        await place.verify(bounds=ONE_BY_ONE)
    assert (await place.verify(bounds=ONE_BY_ONE, restart=True)).resumed == 0


async def test_what_was_proved_of_other_columns_is_forgotten_with_its_ranges(place: Place) -> None:
    place.checksums = MemoryChecksums(place.legacy)
    place.bulk = Failing(place.legacy, "d7", 1, Refused("cut off"))
    with pytest.raises(Refused):
        await place.verify(bounds=ONE_BY_ONE)
    place.bulk = None
    place.checksums.columns = "others"
    run = await place.verify(bounds=ONE_BY_ONE)
    assert (run.verdict, run.resumed, run.rows_read) == ("equal", 0, 10)
    state = ProofState.model_validate_json(place.tasks.stored[PROOF][HEADER])
    assert state.columns == "others"


async def test_the_proof_is_as_old_as_its_oldest_range(place: Place) -> None:
    run = await place.verify()
    parts = place.tasks.stored[PROOF]
    state = ProofState.model_validate_json(parts[HEADER])
    ranges = [RangeProof.model_validate_json(part) for number, part in parts.items() if number > HEADER]
    assert state.oldest_at_ms == run.oldest_at_ms == min(one.proved_at_ms for one in ranges)
    assert (state.state, state.verdict, len(ranges)) == ("done", "equal", len(run.ranges))
    assert (run.ranges[0].after, run.ranges[-1].upto) == (None, None)
    assert [one.upto for one in run.ranges[:-1]] == [one.after for one in run.ranges[1:]]


async def test_two_verifications_of_a_collection_exclude_each_other(place: Place) -> None:
    async with place.tasks.hold(PROOF):
        with pytest.raises(Refused):
            await place.verify()


async def test_a_range_that_grew_is_divided(place: Place) -> None:
    await place.verify()
    for number in range(40):
        await place.put(f"d4-{number:02}")
    run = await place.verify()
    assert (run.verdict, run.legacy_documents) == ("equal", 50)
    again = await place.verify()
    assert (again.legacy_documents, len(again.ranges)) == (50, len(run.ranges))
    assert max(one.rows for one in again.ranges) < 12


async def test_rounds_go_on_until_they_are_enough(place: Place) -> None:
    stores, way, publisher = place.ways()
    found = [run async for run in rounds(stores, replace(way, continuous=True), publisher, most=3, pause_s=0)]
    assert [(run.round, run.verdict) for run in found] == [(1, "equal"), (2, "equal"), (3, "equal")]
    state = ProofState.model_validate_json(place.tasks.stored[PROOF][HEADER])
    assert (state.round, state.continuous) == (3, True)
