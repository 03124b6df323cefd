"""Every question is answered: by the chosen backend, by the other one as degraded, or with the reasons why not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from agents.batch import Message
from agents.query import answer, refused_question
from agents.status_reporter import StatusReporter
from connectors.errors import EmbeddingFailed, Misconfigured, Refused, StoreUnavailable, TransientError
from connectors.memory.legacy import MemoryLegacy
from connectors.ports import SearchRequest
from domain.quarantine import Quarantine, Reason
from schemas.cloudevents import InvalidEvent
from schemas.queries import Hit, QueryAnswered, QueryAsked, RouteDecided
from schemas.records import Outgoing
from schemas.rollout import Phase
from schemas.service import ServiceChanged
from schemas.settings import Routing
from search.breakers import Breakers
from tests.unit.agents.parts import NAME, NOW, TRACEPARENT, Crash, RowSearch, World, content
from topics.catalogue import ANSWERED, ASKED, DECIDED, SERVICE

LEGACY, QDRANT = "search.search", "vectors.search"


class Hanging(RowSearch):
    """A search that never answers. It counts how often it was asked."""

    def __init__(self, legacy: MemoryLegacy) -> None:
        super().__init__(legacy)
        self.asked = 0
        self.begun = asyncio.Event()

    async def search(self, request: SearchRequest) -> list[Hit]:
        self.asked += 1
        self.begun.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody sets the event")


class Asking:
    """A collection with one document in both stores, and the breakers of one process."""

    def __init__(self, world: World, **routing: Any) -> None:
        self.world = world
        # A hanging backend times out after 10 ms. All others here answer within one turn of the loop.
        self.breakers = Breakers(Routing(**({"backend_timeout_ms": 10, "breaker_failures": 2} | routing)))
        self.stopped: Quarantine | None = None

    async def answer(self, message: Message) -> None:
        await answer(
            message,
            collections=self.world.collections,
            bus=self.world.bus,
            ctx=self.world.ctx,
            breakers=self.breakers,
            stopped=lambda _: self.stopped,
        )

    async def ask(self, *, asked_ms_ago: int = 0, **fields: Any) -> QueryAnswered:
        event = QueryAsked(**({"id": "q1", "collection": NAME, "text": "wing"} | fields))
        message = self.world.put(ASKED, event, event.id, trace=TRACEPARENT)
        record = message.record._replace(timestamp_ms=NOW - asked_ms_ago)
        await self.answer(replace(message, record=record))
        return self.world.bus.events(ANSWERED, QueryAnswered)[-1]

    @property
    def decided(self) -> RouteDecided:
        return self.world.bus.events(DECIDED, RouteDecided)[-1]

    def searches(self) -> list[str]:
        return [step for step in self.world.steps() if step.endswith(".search")]


async def asking(phase: Phase = "primary", **routing: Any) -> Asking:
    world = await World(phase=phase).prepared()
    await world.store("1", 5, "lift of a wing")
    world.legacy.write_directly("1", content("lift of a wing"))
    return Asking(world, **routing)


@pytest.mark.parametrize(
    ("phase", "route", "backend"),
    [
        ("off", None, "legacy"),
        ("dual_write", None, "legacy"),
        ("primary", None, "qdrant"),
        ("off", "qdrant", "qdrant"),
        ("dual_write", "qdrant", "qdrant"),
        ("primary", "legacy", "legacy"),
    ],
)
async def test_the_backend_of_the_phase_answers_unless_another_route_is_forced(
    phase: Phase, route: Any, backend: str
) -> None:
    asked = await asking(phase)
    answered = await asked.ask(route=route)
    assert (answered.served_by, answered.degraded, answered.error) == (backend, False, None)
    assert [(hit.document_id, hit.text) for hit in answered.hits] == [("1", "lift of a wing")]
    assert (asked.decided.chosen, asked.decided.phase) == (backend, phase)
    assert asked.searches() == [QDRANT if backend == "qdrant" else LEGACY]
    assert asked.world.embedder.queries_embedded == (1 if backend == "qdrant" else 0)


async def test_answer_and_decision_carry_the_questions_id_key_and_trace() -> None:
    asked = await asking()
    answered = await asked.ask(id="q-7")
    assert (answered.query_id, asked.decided.query_id) == ("q-7", "q-7")
    for topic in (ANSWERED, DECIDED):
        (record,) = asked.world.bus.inner.records(topic)
        assert (record.key, record.header("traceparent")) == (b"q-7", TRACEPARENT)
    assert set(answered.timings_ms) == {"embed", "qdrant", "total"}
    assert "wing" not in asked.decided.model_dump_json()


@pytest.mark.parametrize("error", [StoreUnavailable("down"), TransientError("busy"), Misconfigured("no index")])
async def test_a_failing_backend_is_passed_over_and_the_answer_says_degraded(error: Exception) -> None:
    asked = await asking()
    asked.world.journal.fail(QDRANT, error)
    answered = await asked.ask()
    assert (answered.served_by, answered.degraded, answered.error) == ("legacy", True, None)
    assert answered.hits
    assert f"qdrant: {error}" in asked.decided.reasons


async def test_a_backend_that_takes_too_long_is_passed_over() -> None:
    asked = await asking("dual_write")
    asked.world.ports = replace(asked.world.ports, text_search=Hanging(asked.world.legacy))
    answered = await asked.ask()
    assert (answered.served_by, answered.degraded) == ("qdrant", True)
    assert "legacy: no answer within 0.0 s" in asked.decided.reasons


async def test_without_any_answer_the_error_names_what_each_backend_reported() -> None:
    asked = await asking()
    asked.world.journal.fail(QDRANT, StoreUnavailable("no route"))
    asked.world.journal.fail(LEGACY, StoreUnavailable("refused"))
    answered = await asked.ask()
    assert (answered.served_by, answered.hits, answered.degraded) == (None, (), True)
    assert answered.error == "qdrant: no route; legacy: refused"
    assert asked.decided.chosen == "qdrant"


async def test_the_circuit_opens_after_failures_in_a_row_and_the_backend_is_not_asked_any_more() -> None:
    asked = await asking(breaker_cooldown_s=3600)
    asked.world.journal.fail(QDRANT, *[StoreUnavailable("down")] * 2)
    for _ in range(2):
        await asked.ask()
    asked.searches()
    answered = await asked.ask()
    assert (answered.served_by, answered.degraded) == ("legacy", True)
    assert asked.searches() == [LEGACY]
    assert "the circuit of qdrant is open" in asked.decided.reasons
    assert [a.why_not for a in asked.decided.alternatives] == ["circuit open", None]


async def test_a_success_in_between_keeps_the_circuit_closed() -> None:
    asked = await asking(breaker_cooldown_s=3600)
    for _ in range(3):
        asked.world.journal.fail(QDRANT, StoreUnavailable("down"))
        await asked.ask()
        assert (await asked.ask()).served_by == "qdrant"


async def test_after_the_cooldown_one_question_tries_again() -> None:
    asked = await asking(breaker_failures=1, breaker_cooldown_s=0)
    asked.world.journal.fail(QDRANT, StoreUnavailable("down"))
    assert (await asked.ask()).served_by == "legacy"
    assert (await asked.ask()).served_by == "qdrant"
    assert asked.breakers.of(NAME, "qdrant").opened_at_s is None


async def test_the_circuits_of_two_backends_are_their_own() -> None:
    asked = await asking("dual_write", breaker_failures=1, breaker_cooldown_s=3600)
    asked.world.journal.fail(LEGACY, StoreUnavailable("down"))
    await asked.ask()
    assert asked.breakers.available(NAME) == {"legacy": False, "qdrant": True}


@pytest.mark.parametrize("error", [Refused("metadata has no colour"), EmbeddingFailed("no usable vector")])
async def test_what_the_question_is_to_blame_for_opens_no_circuit(error: Exception) -> None:
    """Any caller may send a filter that is refused. That must not make the backend unavailable to the others."""
    asked = await asking(breaker_failures=1, breaker_cooldown_s=3600)
    asked.world.journal.fail(QDRANT, error)
    asked.world.journal.fail(LEGACY, error)
    answered = await asked.ask(filter={"year": 2020})
    assert answered.error == f"qdrant: {error}; legacy: {error}"
    assert asked.breakers.available(NAME) == {"legacy": True, "qdrant": True}
    assert (await asked.ask()).served_by == "qdrant"


@pytest.mark.parametrize("phase", ["dual_write", "primary"])
@pytest.mark.parametrize("wanted", [{"colour": "red"}, {"colour": None}, {'a"b': 1}, {"year": "last"}, {"year": 1.5}])
async def test_a_filter_that_no_document_could_match_is_refused_before_any_backend_is_asked(
    phase: Phase, wanted: dict[str, Any]
) -> None:
    asked = await asking(phase)
    with pytest.raises(InvalidEvent, match=r"^filter: "):
        await asked.ask(filter=wanted)
    assert asked.searches() == []


@pytest.mark.parametrize("phase", ["dual_write", "primary"])
async def test_a_filter_reaches_every_backend_in_the_columns_own_form(phase: Phase) -> None:
    asked = await asking(phase)
    await asked.world.store("2", 5, "wing", year=2020)
    asked.world.legacy.write_directly("2", content("wing", year=2020))
    for year in ("2020", 2020.0, 2020):
        answered = await asked.ask(filter={"year": year})
        assert [hit.document_id for hit in answered.hits] == ["2"]


async def test_a_deadline_that_passed_is_answered_at_once_without_asking() -> None:
    asked = await asking()
    answered = await asked.ask(deadline_ms=50, asked_ms_ago=50)
    assert (answered.served_by, answered.hits) == (None, ())
    assert answered.error == "the deadline of 50 ms passed before qdrant was asked"
    assert asked.searches() == []


async def test_a_second_backend_is_not_asked_after_the_deadline() -> None:
    asked = await asking("dual_write", backend_timeout_ms=10_000)
    asked.world.ports = replace(asked.world.ports, text_search=Hanging(asked.world.legacy))
    answered = await asked.ask(deadline_ms=60, asked_ms_ago=50)
    assert (answered.served_by, asked.searches()) == (None, [])
    assert answered.error is not None
    assert answered.error.endswith("the deadline of 60 ms passed before qdrant was asked")


async def test_a_deadline_shorter_than_the_backends_own_limit_opens_no_circuit() -> None:
    asked = await asking("off", breaker_failures=1, breaker_cooldown_s=3600, backend_timeout_ms=10_000)
    hanging = Hanging(asked.world.legacy)
    asked.world.ports = replace(asked.world.ports, text_search=hanging)
    await asked.ask(deadline_ms=10)
    await asked.ask(deadline_ms=10)
    assert hanging.asked == 2


async def test_a_probe_that_dies_of_an_unknown_error_leaves_the_circuit_to_another_probe() -> None:
    asked = await asking(breaker_failures=1, breaker_cooldown_s=0)
    asked.world.journal.fail(QDRANT, StoreUnavailable("down"), Crash())
    await asked.ask()
    with pytest.raises(Crash):
        await asked.ask()
    assert (await asked.ask()).served_by == "qdrant"


async def test_a_cancelled_probe_leaves_the_circuit_to_another_probe() -> None:
    asked = await asking("off", breaker_failures=1, breaker_cooldown_s=0, backend_timeout_ms=10_000)
    hanging = Hanging(asked.world.legacy)
    asked.world.journal.fail(LEGACY, StoreUnavailable("down"))
    await asked.ask()
    search, asked.world.ports = asked.world.ports, replace(asked.world.ports, text_search=hanging)
    probe = asyncio.create_task(asked.ask())
    await hanging.begun.wait()
    assert asked.breakers.available(NAME)["legacy"] is False
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    asked.world.ports = search
    assert (await asked.ask()).served_by == "legacy"


async def test_a_question_that_cannot_be_read_is_the_callers_to_give_up_with_an_answer() -> None:
    asked = await asking()
    message = asked.world.bus.add(Outgoing(ASKED, b"q9", b'{"id":"q9"}'))
    with pytest.raises(InvalidEvent) as refused:
        await asked.answer(message)
    (record,) = refused_question(message, refused.value, asked.world.ctx)
    await asked.world.bus.publish([record])
    (answered,) = asked.world.bus.events(ANSWERED, QueryAnswered)
    assert (answered.query_id, answered.hits, answered.error) == ("q9", (), str(refused.value))


async def test_a_refused_question_is_answered_under_its_own_id_whatever_its_records_key() -> None:
    asked = await asking()
    message = asked.world.bus.add(Outgoing(ASKED, b"user 7", b'{"id":"q9","text":""}'))
    (record,) = refused_question(message, InvalidEvent("text: too short"), asked.world.ctx)
    await asked.world.bus.publish([record])
    (answered,) = asked.world.bus.events(ANSWERED, QueryAnswered)
    assert (answered.query_id, answered.refused, answered.error) == ("q9", True, "text: too short")


async def test_an_unknown_collection_is_an_invalid_question() -> None:
    with pytest.raises(InvalidEvent, match="unknown collection 'other'"):
        await (await asking()).ask(collection="other")


async def test_a_question_without_a_key_has_nobody_to_answer() -> None:
    asked = await asking()
    message = asked.world.bus.add(Outgoing(ASKED, None, b"{"))
    assert refused_question(message, InvalidEvent("no"), asked.world.ctx) == []


async def test_of_a_quarantined_collection_the_table_answers_and_the_decision_says_why() -> None:
    asked = await asking("primary")
    asked.stopped = Quarantine(NAME, Reason.CAPTURE_LOST)
    answered = await asked.ask()
    assert (answered.served_by, answered.degraded) == ("legacy", True)
    assert "changes may be missing" in asked.decided.reasons[-1]
    assert asked.searches() == [LEGACY]


async def test_each_change_of_a_circuit_is_reported_once() -> None:
    asked = await asking("primary", breaker_cooldown_s=0.0)
    reporter = StatusReporter(asked.world.bus, asked.world.ctx)
    asked.breakers.report = reporter.report
    asked.world.journal.fail(QDRANT, *[StoreUnavailable("down")] * 3)
    for _ in range(5):
        await asked.ask()
    await reporter.publish()
    reported = asked.world.bus.events(SERVICE, ServiceChanged)
    assert {(each.scope, each.name, each.collection) for each in reported} == {("backend", "qdrant", NAME)}
    # Without a cooldown an opened circuit is half open at once. A failed probe leaves it so, the next closes it.
    assert [each.state for each in reported] == ["half_open", "closed"]
