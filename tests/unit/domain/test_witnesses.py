"""The points by which a Qdrant collection is recognised."""

from __future__ import annotations

from domain.witnesses import RECENT, SAMPLED, Witness, chosen, missing
from migration.witnesses import as_text, from_text
from schemas.keys import LAST_EPOCH, version_of


def points(*versions: int) -> list[Witness]:
    return [Witness(number.to_bytes(16, "big"), version) for number, version in enumerate(versions)]


def held(witnesses: list[Witness]) -> dict[bytes, int]:
    return {one.point: one.version for one in witnesses}


def test_a_collection_that_has_every_witness_or_newer_ones_is_the_same() -> None:
    made = points(0, 0, 5, 6)
    assert missing(made, held(made)) == ""
    assert missing(made, {point: version + 3 for point, version in held(made).items()}) == ""
    assert missing([], {}) == ""


def test_an_emptied_collection_and_one_without_its_newest_points_are_others() -> None:
    made = points(0, 0, 0, 0, 5, 6, 7)
    assert missing(made, {}).startswith("7 of 7 points")
    restored = held(made) | {made[-1].point: 4}
    assert missing(made, restored).startswith("1 of 7 points")
    assert missing(points(0, 0), {}) != ""


def test_damage_to_one_older_point_is_not_another_collection() -> None:
    made = points(0, 0, 0, 5, 6, 7)
    assert missing(made, held(made) | {made[3].point: 1}) == ""
    assert missing(points(0, 0, 0), held(points(0, 0))) == ""


def test_the_newest_are_kept_and_fit_what_is_recorded() -> None:
    highest = version_of(LAST_EPOCH, 2**40 - 1)
    recent = [Witness((1000 + n).to_bytes(16, "big"), highest - n) for n in range(40)]
    kept = chosen([*recent, Witness(recent[0].point, 1)], points(*[3] * 40))
    assert len(kept) == RECENT + SAMPLED
    assert {one.version for one in kept[SAMPLED:]} == {highest - n for n in range(RECENT)}
    assert from_text(as_text(kept)) == kept
    assert len(as_text(kept)) <= 1000
    assert from_text(None) == from_text("") == ()
