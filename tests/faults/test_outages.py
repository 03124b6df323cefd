"""A store that is away, whichever it is, stops only its own roles. Both stores are equal when it is back."""

from __future__ import annotations

import socket
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from stack.layout import PartName, StackAddresses
from stack.stack import LocalStack
from tests.contract.legacy_places import Connection
from tests.faults.closing import Closing, closing
from tests.flow.foreign import Foreign
from tests.flow.site import eventually
from topics.catalogue import ANSWERED, ASKED, SERVICE, WRITTEN

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
# Short enough for a test: a backend is given up, and probed again, within seconds.
LINES = "[routing]\nbackend_timeout_ms = 1000\nbreaker_failures = 2\nbreaker_cooldown_s = 1.0\n"
# Every column is named: if an event leaves some out, Qdrant gets the row as read, and another read may overtake it.
WHOLE = {"kind": "note", "line": 1}


@pytest.fixture
def foreign(stack: StackAddresses) -> Any:
    made = Foreign(stack.kafka)
    yield made
    made.close()


@pytest.fixture
async def ground(stack: StackAddresses, stack_home: Path, tmp_path: Path) -> AsyncIterator[Closing]:
    async with closing(stack, stack_home, tmp_path) as made:
        yield made


async def answer(foreign: Foreign, collection: str, text: str = "body of row 3") -> dict[str, Any]:
    question = uuid.uuid4().hex
    data = {"id": question, "collection": collection, "text": text, "limit": 3}
    foreign.send(ASKED, question, data, "crossfade.query.asked.v1")
    return dict((await foreign.found(ANSWERED, lambda seen: seen.data["query_id"] == question)).data)


async def outcome(foreign: Foreign, cause: str, store: str) -> str:
    found = await foreign.found(WRITTEN, lambda seen: (seen.data["cause"], seen.data["store"]) == (cause, store))
    return str(found.data["outcome"])


async def states(foreign: Foreign, name: str) -> list[str]:
    """Return the published states of a backend or role, in their order."""
    return [seen.data["state"] for seen in await foreign.everything(SERVICE) if seen.data["name"] == name]


async def waits(ground: Closing, role: str) -> bool:
    _, page = await ground.page()
    return any(each["role"] == role and each["state"] == "degraded" for each in page["roles"])


async def test_with_qdrant_away_the_table_is_written_and_answers_and_qdrant_catches_up(
    ground: Closing, foreign: Foreign, stack_home: Path
) -> None:
    await ground.configure({"a": "postgres"}, LINES, phase="primary")
    await ground.worker.start()
    await ground.same("a")
    name = ground.tables["a"].name
    assert (await answer(foreign, name))["served_by"] == "qdrant"
    reported = len(await states(foreign, "qdrant"))
    qdrant = LocalStack(stack_home).part("qdrant")
    await qdrant.stop()
    try:
        text = {"title": "new", "body": "written while Qdrant is away"}
        cause = foreign.submit(name, "meanwhile", text=text, metadata=WHOLE)
        assert await outcome(foreign, cause, "legacy") == "applied"
        rows = await ground.tables["a"].connection.fetch(f"select body from {name} where id = 'meanwhile'")
        assert rows == [(text["body"],)]
        for _ in range(3):
            answered = await answer(foreign, name)
            assert (answered["served_by"], answered["degraded"]) == ("legacy", True)

        async def open_and_waiting() -> bool:
            now = await states(foreign, "qdrant")
            return "open" in now[reported:] and (await waits(ground, "embedder") or await waits(ground, "vector"))

        await eventually(open_and_waiting, "the circuit of qdrant is told open, and its roles wait")
        assert (await ground.page("livez"))[0] == 200
    finally:
        await qdrant.start(lambda _: None)
    assert await outcome(foreign, cause, "qdrant") == "applied"
    await ground.same("a")

    async def back() -> bool:
        answered, (status, _) = await answer(foreign, name), await ground.page()
        return answered["served_by"] == "qdrant" and status == 200

    await eventually(back, "qdrant answers again, and every role is ready")

    async def closed() -> bool:
        return (await states(foreign, "qdrant"))[-2:] == ["half_open", "closed"]

    await eventually(closed, "the circuit is told to have closed after a probe")


async def test_with_the_legacy_database_away_qdrant_answers_and_the_table_catches_up(
    ground: Closing, foreign: Foreign, stack_home: Path
) -> None:
    await ground.configure({"a": "postgres", "m": "mariadb"}, LINES, phase="primary")
    await ground.worker.start()
    await ground.same("a", "m")
    name = ground.tables["a"].name
    part: PartName = "postgres"
    postgres = LocalStack(stack_home).part(part)
    await ground.tables["a"].connection.close()
    await postgres.stop()
    try:
        cause = foreign.submit(
            name, "meanwhile", text={"title": "new", "body": "submitted while PostgreSQL is away"}, metadata=WHOLE
        )
        for _ in range(3):
            answered = await answer(foreign, name)
            assert (answered["served_by"], answered["degraded"]) == ("qdrant", False)

        async def waiting() -> bool:
            return await waits(ground, "resolver") or await waits(ground, "legacy")

        await eventually(waiting, "a role waits for PostgreSQL")
        assert (await ground.page("livez"))[0] == 200
    finally:
        await postgres.start(lambda _: None)
        ground.tables["a"].connection = await Connection.open("postgres", ground.addresses.postgres)
    for store in ("legacy", "qdrant"):
        assert await outcome(foreign, cause, store) == "applied"
    await ground.same("a", "m")
    await ground.is_stopped()  # the guard sees the database at its next check


async def test_a_collector_that_does_not_answer_stops_nothing(
    stack: StackAddresses, stack_home: Path, tmp_path: Path, foreign: Foreign
) -> None:
    with socket.socket() as silent:
        # It accepts connections and never answers.
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_BSP_MAX_QUEUE_SIZE": "64",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "16",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "NO_PROXY": "127.0.0.1",
        }
        async with closing(stack, stack_home, tmp_path, environ) as ground:
            await ground.configure({"a": "postgres"})
            await ground.worker.start()
            await ground.same("a")
            name = ground.tables["a"].name
            texts = [{"title": "t", "body": f"number {n}"} for n in range(100)]
            causes = [foreign.submit(name, f"n-{n}", text=text, metadata=WHOLE) for n, text in enumerate(texts)]
            for store in ("legacy", "qdrant"):
                assert await outcome(foreign, causes[-1], store) == "applied"
            assert (await answer(foreign, name))["error"] is None
            assert (await ground.page())[0] == 200
            await ground.worker.stop()
