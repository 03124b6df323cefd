"""Bounds of a mean that hold at every moment: those of a public implementation, at their level when simulated."""

from __future__ import annotations

import numpy as np
import pytest

from domain.rollout.confidence import BoundedMean

# Bounds after 1, 10, 50 and 400 values, computed with `predmix_empbern_twosided_cs` of confseq 0.0.11 (MIT licence,
# github.com/gostevehoward/confseq), without its running intersection.
REFERENCE = [
    ("bernoulli_2", 0.05, [(1, 0.0, 1.0), (10, 0.0, 0.89725625), (50, 0.0, 0.18010768), (400, 0.0, 0.047565804)]),
    ("bernoulli_2", 0.01, [(1, 0.0, 1.0), (10, 0.0, 1.0), (50, 0.0, 0.244485197), (400, 0.0, 0.054902106)]),
    ("bernoulli_40", 0.05, [(50, 0.054281851, 0.53459369), (400, 0.301847264, 0.48150248)]),
    ("bernoulli_40", 0.01, [(50, 0.0, 0.60087794), (400, 0.291313803, 0.501377077)]),
    ("uniform", 0.05, [(50, 0.378405023, 0.750324937), (400, 0.447488024, 0.550048379)]),
    ("uniform", 0.01, [(50, 0.314027506, 0.814702454), (400, 0.436858659, 0.559021431)]),
    ("cubed", 0.05, [(50, 0.119848974, 0.500260485), (400, 0.198578206, 0.300628229)]),
    ("cubed", 0.01, [(50, 0.055471457, 0.564638002), (400, 0.188075997, 0.309230356)]),
]


def uniform(count: int, seed: int = 1) -> list[float]:
    """Return the values of the minimal standard generator with multiplier 48271."""
    values = []
    for _ in range(count):
        seed = seed * 48271 % 2147483647
        values.append(seed / 2147483647)
    return values


SAMPLES = {
    "bernoulli_2": [float(u < 0.02) for u in uniform(400)],
    "bernoulli_40": [float(u < 0.4) for u in uniform(400)],
    "uniform": uniform(400),
    "cubed": [u**3 for u in uniform(400)],
}


@pytest.mark.parametrize(("sample", "alpha", "bounds"), REFERENCE)
def test_the_bounds_are_those_of_the_authors_implementation(
    sample: str, alpha: float, bounds: list[tuple[int, float, float]]
) -> None:
    mean, found = BoundedMean(alpha=alpha), {}
    for number, value in enumerate(SAMPLES[sample], 1):
        mean.add(value)
        found[number] = (mean.low, mean.high)
    for number, low, high in bounds:
        assert found[number] == pytest.approx((low, high), abs=1e-8)


def test_values_of_another_range_are_scaled() -> None:
    plain, scaled = BoundedMean(), BoundedMean(least=-1, most=1)
    for value in SAMPLES["uniform"]:
        plain.add(value)
        scaled.add(2 * value - 1)
    assert scaled.mean == pytest.approx(2 * (plain.mean or 0) - 1)
    assert (scaled.low, scaled.high) == pytest.approx((2 * plain.low - 1, 2 * plain.high - 1))


def test_without_values_everything_is_possible() -> None:
    assert (BoundedMean(least=-1).mean, BoundedMean(least=-1).low, BoundedMean(least=-1).high) == (None, -1, 1)


@pytest.mark.parametrize("value", [1.01, -0.01, float("nan"), float("inf")])
def test_a_value_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="between"):
        BoundedMean().add(value)


def test_looked_at_after_every_sample_the_bounds_miss_the_mean_no_more_often_than_their_level() -> None:
    rng, missed = np.random.default_rng(7), 0
    for _ in range(400):
        mean, wrong = BoundedMean(alpha=0.05), False
        for value in rng.random(300) < 0.1:
            mean.add(float(value))
            wrong = wrong or not mean.low <= 0.1 <= mean.high
        missed += wrong
    assert missed <= 0.05 * 400
