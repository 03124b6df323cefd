"""Confidence sequences: bounds of a mean that hold at every moment at once, however often they are looked at.

A gate is looked at after every sample. A confidence interval of fixed size is wrong far more often then: a z-test that
is looked at daily for 30 days raises about 29 % false alarms. A confidence sequence keeps its level.

The construction is the predictable mixture empirical Bernstein confidence sequence of Waudby-Smith and Ramdas,
"Estimating means of bounded random variables by betting", Journal of the Royal Statistical Society B 86 (2024), theorem
2, arXiv:2010.09686. It assumes bounded values and nothing else of their distribution but that their conditional mean,
given those before, is the one that is estimated. The tests compare it with the authors' implementation.

The bounds are those of the present moment, not the best ones so far: those would be tighter, but a side that was good
for a day and is bad now would keep the bounds of that day. Early values still weigh more than late ones, so a change
for the worse is found by looking at recent values alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

ALPHA = 0.05
_TRUNCATION = 0.5
_PRIOR_MEAN = 0.5
_PRIOR_VARIANCE = 0.25


def binomial_tail(count: int, bad: int, share: float) -> float:
    """Return the probability of at least `bad` bad ones among `count`, if each is bad with probability `share`."""
    if bad <= 0:
        return 1.0
    log_p, log_q = math.log(share), math.log1p(-share)
    terms = (
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * log_p + (count - k) * log_q
        for k in range(bad, count + 1)
    )
    return min(1.0, sum(math.exp(term) for term in terms))


@dataclass(slots=True)
class _LowerBound:
    """The lower confidence sequence of values from 0 to 1, at the level `alpha`."""

    alpha: float
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    bets: float = 0.0
    weighted: float = 0.0
    spent: float = 0.0

    @property
    def bound(self) -> float:
        if not self.count:
            return 0.0
        return max(0.0, (self.weighted - math.log(1 / self.alpha) - self.spent) / self.bets)

    def add(self, value: float) -> None:
        mean = self.total / self.count if self.count else 0.0
        variance = (_PRIOR_VARIANCE + self.squares) / (self.count + 1)
        self.count += 1
        bet = min(
            math.sqrt(2 * math.log(1 / self.alpha) / (self.count * math.log1p(self.count) * variance)), _TRUNCATION
        )
        self.total += value
        regular = (_PRIOR_MEAN + self.total) / (self.count + 1)
        self.squares += (value - regular) ** 2
        self.bets += bet
        self.weighted += bet * value
        self.spent += (value - mean) ** 2 * (-math.log1p(-bet) - bet)


@dataclass(slots=True)
class BoundedMean:
    """The mean of values between `least` and `most`, with bounds that hold at all times with probability 1 - `alpha`.

    Raises ValueError for a value that is out of range or not a number.
    """

    least: float = 0.0
    most: float = 1.0
    alpha: float = ALPHA
    _below: _LowerBound = field(init=False)
    _above: _LowerBound = field(init=False)

    def __post_init__(self) -> None:
        if not self.least < self.most or not 0 < self.alpha < 1:
            raise ValueError("a mean needs least < most, and a level between 0 and 1")
        self._below, self._above = _LowerBound(self.alpha / 2), _LowerBound(self.alpha / 2)

    def add(self, value: float) -> None:
        """Take one more value."""
        if not self.least <= value <= self.most:
            raise ValueError(f"{value!r} is not between {self.least:g} and {self.most:g}")
        scaled = (value - self.least) / (self.most - self.least)
        self._below.add(scaled)
        self._above.add(1 - scaled)

    @property
    def count(self) -> int:
        """How many values were taken."""
        return self._below.count

    @property
    def mean(self) -> float | None:
        """Their mean, None if there are none."""
        return self._scaled(self._below.total / self.count) if self.count else None

    @property
    def low(self) -> float:
        """The lower bound of the true mean."""
        return self._scaled(self._below.bound)

    @property
    def high(self) -> float:
        """The upper bound of the true mean."""
        return self._scaled(1 - self._above.bound)

    def _scaled(self, share: float) -> float:
        return self.least + share * (self.most - self.least)
