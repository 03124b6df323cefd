"""A rollout with a real worker: gates that only measured questions open, a canary, a rollback under load, a guard."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from operations.clients.questions import Asker
from schemas.queries import QueryAnswered, QueryAsked
from tests.contract.legacy_places import DATABASES
from tests.flow.site import Site, Store, eventually

pytestmark = pytest.mark.stack
GATES_DID_NOT_PASS = 3


@dataclass
class Client:
    """An application that asks without pause. `answers` are the time of each answer and what it was."""

    store: Store
    answers: list[tuple[float, QueryAnswered]] = field(default_factory=list)
    asked: int = 0

    async def run(self, asker: Asker) -> None:
        while True:
            self.asked += 1
            query = QueryAsked(
                id=f"{self.store.name}-{self.asked}-{time.time_ns()}",
                collection=self.store.name,
                text=f"the body of row {self.asked % 30}",
                session=str(self.asked % 200),
            )
            answered = await asker.ask(query, 30)
            self.answers.append((time.monotonic(), answered))
            await asyncio.sleep(0.02)

    def since(self, at: float) -> Counter[str]:
        return Counter(answered.served_by or "nobody" for when, answered in self.answers if when >= at)


@asynccontextmanager
async def asking(store: Store) -> AsyncIterator[Client]:
    opened = store.site.opened
    client = Client(store)
    async with Asker(opened.settings.kafka, opened.bus) as asker:
        tasks = [asyncio.create_task(client.run(asker)) for _ in range(3)]
        try:
            yield client
            failed = [task.exception() for task in tasks if task.done()]
            assert failed == []
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def migrate(store: Store, action: str, *options: str) -> tuple[int, dict[str, Any]]:
    code, output = await store.command("migrate", action, store.name, *options, "--json")
    return code, json.loads(output) if output else {}


async def proved(store: Store) -> None:
    await store.holds_the_same(40)
    code, _ = await store.command("verify", store.name)
    assert code == 0


@pytest.mark.parametrize("connector", DATABASES)
async def test_a_collection_goes_forth_and_back_under_load(site: Site, connector: Any) -> None:
    store = site.store("rolled", connector)
    code, decided = await migrate(store, "promote", "--to", "shadow")
    assert (code, decided["after"]) == (GATES_DID_NOT_PASS, "dual_write")  # nothing is proved yet
    await proved(store)
    code, decided = await migrate(store, "promote", "--to", "shadow", "--reason", "proved")
    assert (code, decided["after"]) == (0, "shadow"), decided
    code, decided = await migrate(store, "promote")
    assert code == GATES_DID_NOT_PASS
    assert {g["gate"] for g in decided["gates"] if g["verdict"] == "inconclusive"} >= {"comparisons", "qdrant_errors"}

    async with asking(store) as client:

        async def passes() -> bool:
            code, _ = await migrate(store, "promote", "--dry-run", "--to", "canary_50")
            return code == 0

        await eventually(passes, "the gates of a canary pass on measured questions")
        assert set(client.since(0)) == {"legacy"}
        code, decided = await migrate(store, "promote", "--to", "canary_50", "--expect-revision", "2")
        assert (code, decided["after"]) == (0, "canary_50"), decided
        code, decided = await migrate(store, "promote", "--expect-revision", "2")
        assert (code, decided["outcome"]) == (1, "conflict")

        begun = time.monotonic() + 1.0

        async def both_answer() -> bool:
            counts = client.since(begun)
            return counts["qdrant"] > 20 and counts["legacy"] > 20

        await eventually(both_answer, "both sides answer in the canary")
        code, decided = await migrate(store, "rollback", "--reason", "a drill")
        assert (code, decided["after"]) == (0, "shadow")

        async def legacy_answers_all() -> bool:
            after = [answered for _, answered in client.answers[-30:] if not answered.degraded]
            return {answered.served_by for answered in after} == {"legacy"}

        await eventually(legacy_answers_all, "legacy answers everybody again")
        assert client.since(0)["nobody"] == 0
        assert not any(answered.error for _, answered in client.answers)
    code, shown = await migrate(store, "history")
    moves = [(each["before"], each["after"]) for each in shown["decisions"] if each["outcome"] == "applied"]
    assert moves == [("dual_write", "shadow"), ("shadow", "canary_50"), ("canary_50", "shadow")]
    _, compared = await migrate(store, "comparisons", "--worst", "3")
    assert compared["compared"] >= 20
    assert len(compared["worst"]) == 3


async def test_a_guard_takes_a_slow_side_back_by_itself(site: Site) -> None:
    store = site.store("guarded", "postgres")
    await proved(store)
    async with asking(store) as client:
        code, _ = await migrate(store, "promote", "--to", "primary", "--force", "--reason", "a drill")
        assert code == 0

        async def went_back() -> bool:
            _, shown = await migrate(store, "history")
            return bool(shown["decisions"][-1]["after"] == "shadow")

        await eventually(went_back, "the guard went back")
        assert client.since(0)["nobody"] == 0
    _, shown = await migrate(store, "history")
    last = shown["decisions"][-1]
    assert last["command"]["by"].startswith("guard: qdrant_latency")
    assert [breach["verdict"] for breach in last["command"]["evidence"]] == ["failed"]
    code, decided = await migrate(store, "promote")
    assert (code, decided["outcome"]) == (1, "refused")
    assert "went back" in decided["message"]
