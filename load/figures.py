"""A measured figure and its output: one JSON line on stdout, one readable line on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from hdrh.histogram import HdrHistogram

_LONGEST_US = 600_000_000
_DIGITS = 3
_QUANTILES = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p99_9": 99.9}


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a benchmark. `baseline` and `ratio` are set if it is compared; `details` are facts of the run.

    Value and baseline are medians of the slices. The ratio is the median of the slices' ratios, not the quotient of
    the two medians.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    details: dict[str, object] = field(default_factory=dict)

    def as_json(self) -> str:
        """Return the figure as one line of JSON, without a baseline or ratio that is not set."""
        compared = {"baseline": self.baseline, "ratio": self.ratio}
        known = {name: value for name, value in compared.items() if value is not None}
        return json.dumps({"name": self.name, "value": self.value, "unit": self.unit, **known, **self.details})

    def as_text(self) -> str:
        """Return the figure as one line for people."""
        against = (
            f"  against {self.baseline:g} (medians), median of ratios {self.ratio:.2f}"
            if self.ratio and self.baseline
            else ""
        )
        details = "".join(f"  {name} {value}" for name, value in self.details.items())
        return f"{self.name:32} {self.value:>10g} {self.unit:12}{against}{details}"


def show(figures: Iterable[Figure]) -> None:
    """Print figures: JSON lines on stdout for programs, text on stderr for people."""
    for figure in figures:
        print(figure.as_json(), flush=True)
        print(figure.as_text(), file=sys.stderr, flush=True)


class Latencies:
    """Latencies in an HdrHistogram (one microsecond to ten minutes, three significant digits)."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, _LONGEST_US, _DIGITS)

    def record(self, seconds: float) -> None:
        """Count one latency. A latency beyond the histogram's range counts as its longest."""
        self._histogram.record_value(min(_LONGEST_US, max(1, int(seconds * 1_000_000))))

    @property
    def count(self) -> int:
        """The number of recorded latencies."""
        return int(self._histogram.get_total_count())

    def ms(self) -> dict[str, float]:
        """Return the quantiles and the longest latency, in milliseconds."""
        found = {name: self._histogram.get_value_at_percentile(q) / 1000 for name, q in _QUANTILES.items()}
        return {
            name: round(value, 2) for name, value in {**found, "max": self._histogram.get_max_value() / 1000}.items()
        }

    def figures(self, name: str, quantiles: Iterable[str], **details: object) -> list[Figure]:
        """Return one figure for each of the given quantiles. The details of each have all quantiles."""
        found = self.ms()
        return [
            Figure(f"{name}_{q}_ms", found[q], "ms", details={"of": found, "count": self.count, **details})
            for q in quantiles
        ]
