"""Shadow reads: both sides' answers are compared off the hot path, within bounds, and nothing is lost uncounted."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, cast

import pytest

from agents.query import answer
from connectors.errors import StoreUnavailable
from connectors.ports import SearchBackend, SearchRequest
from schemas.queries import Hit, QueryAnswered, QueryAsked, ShadowCompared
from schemas.rollout import Phase
from schemas.settings import Routing, Shadow
from search.breakers import Breakers
from search.shadow import ShadowReads
from tests.unit.agents.parts import NAME, TRACEPARENT, World, content
from topics.catalogue import ANSWERED, ASKED, COMPARED

EVERY = Shadow(rate=1.0, per_second=1000.0, noise_share=0.0)


class Slow:
    """A side that answers when the test lets it."""

    needs_vector = False

    def __init__(self, inner: SearchBackend) -> None:
        self.inner, self.gate, self.waiting = inner, asyncio.Event(), 0

    async def search(self, request: SearchRequest) -> list[Hit]:
        self.waiting += 1
        await self.gate.wait()
        return await self.inner.search(request)


class Shadowed:
    """A collection whose questions are compared. `counts` has what became of the chosen ones."""

    def __init__(self, world: World, shadow: Shadow, **bounds: Any) -> None:
        self.world, self.counts = world, Counter[str]()
        settings = world.ports.settings.model_copy(update={"shadow": shadow})
        world.ports = cast(Any, type(world.ports))(
            **{name: getattr(world.ports, name) for name in world.ports.__dataclass_fields__} | {"settings": settings}
        )
        self.breakers = Breakers(Routing(backend_timeout_ms=200))
        self.reads = ShadowReads(world.bus, world.ctx, self.breakers, **bounds)

    async def ask(self, number: int = 1, **fields: Any) -> QueryAnswered:
        event = QueryAsked(**({"id": f"q{number}", "collection": NAME, "text": "wing"} | fields))
        await answer(
            self.world.put(ASKED, event, event.id, trace=TRACEPARENT),
            collections=self.world.collections,
            bus=self.world.bus,
            ctx=self.world.ctx,
            breakers=self.breakers,
            compare=self.reads.offer,
        )
        return self.world.bus.events(ANSWERED, QueryAnswered)[-1]

    async def compared(self) -> list[ShadowCompared]:
        """Return the comparisons, once those in flight are done."""
        await asyncio.gather(*self.reads._tasks)
        return self.world.bus.events(COMPARED, ShadowCompared)


async def shadowed(
    monkeypatch: pytest.MonkeyPatch, phase: Phase = "shadow", shadow: Shadow = EVERY, **bounds: Any
) -> Shadowed:
    world = await World(phase=phase).prepared()
    for document in ("1", "2"):
        await world.store(document, 5, "lift of a wing")
        world.legacy.write_directly(document, content("lift of a wing"))
    desk = Shadowed(world, shadow, **bounds)
    monkeypatch.setattr(
        type(world.ctx.telemetry), "compared", lambda _self, _name, outcome: desk.counts.update([outcome])
    )
    return desk


async def test_a_question_is_asked_of_the_other_side_after_it_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await shadowed(monkeypatch)
    answered = await desk.ask()
    (found,) = await desk.compared()
    assert (answered.served_by, found.answered.backend, found.compared.backend) == ("legacy", "legacy", "qdrant")
    assert (found.missing, found.error) == ((), None)
    assert [found.overlap, found.rbo] == pytest.approx([1.0, 1.0])
    assert {hit.document_id for hit in found.answer} == {hit.document_id for hit in found.other} == {"1", "2"}
    steps = [step for step in desk.world.steps() if "publish" in step or step.endswith(".search")]
    assert [step.split()[0] for step in steps] == ["search.search", "publish", "vectors.search", "publish"]
    (record,) = desk.world.bus.inner.records(COMPARED)
    assert (record.key, record.header("traceparent")) == (b"q1", TRACEPARENT)
    assert desk.counts == {"compared": 1}


@pytest.mark.parametrize(
    ("phase", "answers"), [("off", None), ("dual_write", None), ("shadow", "legacy"), ("primary", "qdrant")]
)
async def test_only_phases_that_are_compared_ask_twice(
    monkeypatch: pytest.MonkeyPatch, phase: Phase, answers: str | None
) -> None:
    desk = await shadowed(monkeypatch, phase)
    await desk.ask()
    assert [found.answered.backend for found in await desk.compared()] == ([answers] if answers else [])


async def test_a_forced_route_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await shadowed(monkeypatch)
    await desk.ask(route="qdrant")
    assert await desk.compared() == []


async def test_what_is_missing_on_the_other_side_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await shadowed(monkeypatch)
    desk.world.legacy.write_directly("3", content("a wing that Qdrant lacks"))
    await desk.ask(limit=5)
    (found,) = await desk.compared()
    assert [(missing.document_id, missing.reason) for missing in found.missing] == [("3", "not_stored")]
    assert found.overlap == pytest.approx(2 / 3)


async def test_a_document_that_only_the_other_side_has_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await shadowed(monkeypatch)
    await desk.world.store("ghost", 5, "lift of a wing")
    await desk.ask(limit=5)
    (found,) = await desk.compared()
    assert [(hit.document_id, hit.reason) for hit in found.only_there] == [("ghost", "not_stored")]
    assert found.missing == ()


async def test_a_document_that_the_other_side_ranks_lower_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await shadowed(monkeypatch)
    await desk.world.store("9", 5, "wing")
    await desk.ask(limit=1, text="wing")
    (found,) = await desk.compared()
    assert {missing.reason for missing in found.missing} <= {"ranked_lower"}


async def test_an_answer_differs_from_itself_by_its_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await shadowed(monkeypatch, shadow=EVERY.model_copy(update={"noise_share": 1.0}))
    await desk.ask()
    (found,) = await desk.compared()
    assert [found.noise_overlap, found.noise_rbo] == pytest.approx([1.0, 1.0])
    assert [step for step in desk.world.steps() if step == "search.search"] == ["search.search"] * 2


async def test_a_side_that_fails_is_reported_and_its_circuit_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await shadowed(monkeypatch)
    for number in range(20):
        desk.world.journal.fail("vectors.search", StoreUnavailable("down"))
        await desk.ask(number)
        await desk.compared()
    found = await desk.compared()
    assert {(each.overlap, each.compared.outcome, each.error) for each in found} == {(None, "failed", "down")}
    assert desk.breakers.available(NAME)["qdrant"]
    assert desk.counts == {"failed": 20}


async def test_a_side_that_hangs_costs_its_time_limit_and_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await shadowed(monkeypatch, "primary")
    desk.breakers.routing = Routing(backend_timeout_ms=10)
    object.__setattr__(desk.world.ports, "text_search", Slow(desk.world.ports.text_search))
    answered = await desk.ask()
    assert answered.served_by == "qdrant"
    (found,) = await desk.compared()
    assert (found.compared.outcome, found.overlap) == ("timed_out", None)


async def test_what_there_is_no_room_for_is_shed(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await shadowed(monkeypatch, "primary", in_flight=2)
    slow = Slow(desk.world.ports.text_search)
    object.__setattr__(desk.world.ports, "text_search", slow)
    for number in range(5):
        await desk.ask(number)
    assert desk.counts == {"shed": 3}
    slow.gate.set()
    assert len(await desk.compared()) == 2


async def test_the_budget_of_a_second_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    desk = await shadowed(
        monkeypatch, shadow=Shadow(rate=1.0, per_second=2.0, noise_share=0.0), in_flight=100, clock_s=lambda: now[0]
    )
    for number in range(6):
        await desk.ask(number)
    now[0] = 1.0
    for number in range(6, 12):
        await desk.ask(number)
    assert len(await desk.compared()) == 4
    assert desk.counts == {"compared": 4, "shed": 8}


async def test_a_stop_cancels_what_is_in_flight_and_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await shadowed(monkeypatch, "primary")
    object.__setattr__(desk.world.ports, "text_search", Slow(desk.world.ports.text_search))
    await desk.ask()
    await asyncio.sleep(0)
    await desk.reads.close()
    assert desk.counts == {"cancelled": 1}


async def test_the_sample_is_a_share_of_the_questions_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for _ in range(2):
        desk = await shadowed(
            monkeypatch, shadow=Shadow(rate=0.3, per_second=10_000.0, noise_share=0.0), in_flight=1000
        )
        for number in range(200):
            await desk.ask(number)
        drawn.append({found.query_id for found in await desk.compared()})
    assert drawn[0] == drawn[1]
    assert 40 <= len(drawn[0]) <= 80
