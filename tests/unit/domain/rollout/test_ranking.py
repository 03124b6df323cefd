"""How alike two answers are: the share of common documents, and the rank-biased overlap as it is defined."""

from __future__ import annotations

import random

import pytest

from domain.rollout.ranking import overlap, rank_biased_overlap, rank_shift


def defined(first: list[str], second: list[str], p: float) -> float:
    """Return the rank-biased overlap of two equally long lists by its definition, the last agreement going on."""
    depths = range(1, len(first) + 1)
    agreements = [len(set(first[:depth]) & set(second[:depth])) / depth for depth in depths]
    agreements += [agreements[-1]] * 2000
    return (1 - p) * sum(agreement * p**depth for depth, agreement in enumerate(agreements))


def test_equal_answers_are_alike_and_disjoint_ones_are_not() -> None:
    ours = list("abcde")
    assert [overlap(ours, ours, 5), rank_biased_overlap(ours, ours)] == pytest.approx([1.0, 1.0])
    assert (overlap(ours, list("vwxyz"), 5), rank_biased_overlap(ours, list("vwxyz"))) == (0.0, 0.0)


def test_empty_answers_are_alike_and_one_empty_answer_is_like_nothing() -> None:
    assert (overlap([], [], 5), rank_biased_overlap([], [])) == (1.0, 1.0)
    assert (overlap(["a"], [], 5), rank_biased_overlap([], ["a"])) == (0.0, 0.0)


def test_the_overlap_is_that_of_the_first_ranks() -> None:
    assert overlap(list("abcd"), list("dcba"), 2) == 0.0
    assert overlap(list("abcd"), list("abxy"), 4) == 0.5
    assert overlap(list("ab"), list("abcd"), 4) == 0.5


@pytest.mark.parametrize("p", [0.5, 0.9, 0.98])
def test_the_rank_biased_overlap_is_that_of_its_definition(p: float) -> None:
    draw = random.Random(3)
    for _ in range(50):
        first, second = (draw.sample("abcdefghijklmno", 10) for _ in range(2))
        assert rank_biased_overlap(first, second, p) == pytest.approx(defined(first, second, p))


def test_lists_of_different_length_are_extrapolated_between_their_bounds() -> None:
    draw = random.Random(5)
    for _ in range(200):
        first = draw.sample("abcdefghij", draw.randint(1, 10))
        second = draw.sample("abcdefghij", draw.randint(1, 10))
        found = rank_biased_overlap(first, second)
        assert 0 <= found <= 1 + 1e-12
        assert found == pytest.approx(rank_biased_overlap(second, first))


def test_a_difference_at_the_top_weighs_more_than_one_at_the_bottom() -> None:
    ours = list("abcdefghij")
    assert rank_biased_overlap(ours, list("zbcdefghij")) < rank_biased_overlap(ours, list("abcdefghiz"))


def test_ranks_of_common_documents_are_compared() -> None:
    assert rank_shift(list("abc"), list("acb")) == pytest.approx(2 / 3)
    assert rank_shift(list("abc"), list("xyz")) is None
