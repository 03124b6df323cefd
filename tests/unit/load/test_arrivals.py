"""The generator's arrivals do not wait for answers, and a latency counts from the time when an arrival was due."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from load.arrivals import Overloaded, Schedule, open_loop
from load.figures import Figure, Latencies


def test_the_same_seed_gives_the_same_arrivals_at_about_the_asked_rate() -> None:
    first = list(Schedule(50.0, 20.0, seed=3).offsets())
    assert first == list(Schedule(50.0, 20.0, seed=3).offsets())
    assert first != list(Schedule(50.0, 20.0, seed=4).offsets())
    assert first == sorted(first)
    assert 0 < first[0] < first[-1] < 20.0
    # Poisson with mean 1000: more than six deviations off is an error of the generator, not chance.
    assert abs(len(first) - 1000) < 6 * 1000**0.5


async def test_arrivals_go_on_while_earlier_ones_are_unanswered() -> None:
    answer = asyncio.Event()
    begun: list[int] = []

    async def send(number: int, _: float) -> None:
        begun.append(number)
        if len(begun) == 5:
            answer.set()  # a closed loop would wait for the first answer forever
        await answer.wait()

    count = await open_loop(Schedule(1000.0, 0.05), send)
    assert begun == list(range(count))
    assert count >= 5


async def test_a_stall_of_the_system_is_in_every_latency_that_was_due_meanwhile() -> None:
    latencies: list[float] = []

    async def send(number: int, due: float) -> None:
        if number == 0:
            time.sleep(0.2)  # noqa: ASYNC251 - the whole system stands still
        latencies.append(time.perf_counter() - due)

    await open_loop(Schedule(200.0, 0.1), send)
    assert len(latencies) > 5
    assert all(latency > 0.05 for latency in latencies)


async def test_more_unanswered_arrivals_than_the_bound_end_the_run() -> None:
    async def never(_: int, __: float) -> None:
        await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        await open_loop(Schedule(1000.0, 5.0), never, in_flight=10)
    assert caught.group_contains(Overloaded, match="10 arrivals are unanswered")


def test_quantiles_are_those_of_what_was_recorded() -> None:
    latencies = Latencies()
    for milliseconds in range(1, 1001):
        latencies.record(milliseconds / 1000)
    found = latencies.ms()
    assert latencies.count == 1000
    for name, expected in (("p50", 500), ("p95", 950), ("p99", 990), ("max", 1000)):
        assert found[name] == pytest.approx(expected, rel=0.002)
    (figure,) = latencies.figures("answer", ["p95"], points=7)
    assert (figure.name, figure.unit, figure.value) == ("answer_p95_ms", "ms", found["p95"])
    assert figure.details["points"] == 7


def test_a_figure_is_one_line_of_json_with_its_comparison_where_there_is_one() -> None:
    alone = json.loads(Figure("worker_peak_mib", 474.0, "MiB").as_json())
    assert alone == {"name": "worker_peak_mib", "value": 474.0, "unit": "MiB"}
    line = Figure("engine_ratio", 97.5, "documents/s", baseline=31.2, ratio=3.13, details={"chunks": 5}).as_json()
    assert "\n" not in line
    assert json.loads(line)["ratio"] == 3.13
