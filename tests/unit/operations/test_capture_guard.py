"""How the guard goes round: what takes long is nothing to the others, what ends one ends it."""

from __future__ import annotations

import asyncio

import pytest

from connectors.errors import Misconfigured
from operations.capture_guard import Rounds


async def test_a_look_that_takes_long_holds_up_no_other_and_is_not_begun_twice() -> None:
    begun: list[str] = []
    answer = asyncio.Event()

    async def slow() -> None:
        begun.append("slow")
        await answer.wait()

    async def quick() -> None:
        begun.append("quick")

    rounds = Rounds()
    for _ in range(3):
        rounds.begin("a", slow())
        rounds.begin("b", quick())
        await rounds.passed(0.01)
    assert begun == ["slow", "quick", "quick", "quick"]
    answer.set()
    await rounds.passed(5)
    rounds.begin("a", slow())
    await rounds.passed(5)
    assert begun.count("slow") == 2
    await rounds.end()


async def test_what_ends_a_look_is_raised_and_the_others_end_with_the_guard() -> None:
    ended = []

    async def wrong() -> None:
        raise Misconfigured("another number of partitions")

    async def other() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("other")

    rounds = Rounds()
    rounds.begin("a", other())
    rounds.begin("b", wrong())
    with pytest.raises(Misconfigured):
        await rounds.passed(0.05)
    await rounds.end()
    assert ended == ["other"]
