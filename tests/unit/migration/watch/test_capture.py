"""How the guard repeats its checks: slow checks, failed checks, and when a connector that failed is healthy again."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from connectors.errors import Misconfigured
from connectors.kafka.connect import ConnectorStatus
from domain.quarantine import Reason
from migration.capture.connectors import Group
from migration.quarantine import Quarantines
from migration.watch import capture as capture_guard
from migration.watch.capture import GUARD_S, WELL_S, Rounds, _guard, _Watched
from schemas.settings import Kafka
from tests.unit.agents.parts import NAME, World
from topics.captures import Capture

TOO_LARGE = "RecordTooLargeException: the message is 9000000 bytes"


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


@dataclass
class Connect:
    """A connector that fails some seconds after each start, until `mended` is set. It has read up to `pos`."""

    now_s: float = 1000.0
    started_s: float = 0.0
    runs_s: float = 7.0
    mended: bool = False
    pos: int = 5
    snapshot: bool = False
    restarts: list[float] = field(default_factory=list)

    def runs(self) -> bool:
        return self.mended or self.now_s - self.started_s < self.runs_s

    async def status(self, name: str) -> ConnectorStatus:
        return ConnectorStatus(name, "RUNNING", ("RUNNING",) if self.runs() else ("FAILED",), TOO_LARGE)

    async def committed(self, name: str) -> dict[str, Any]:
        place = {"file": "binlog.000001", "pos": self.pos}
        return {**place, "snapshot": "INITIAL", "snapshot_completed": False} if self.snapshot else place

    async def config(self, name: str) -> dict[str, str]:
        return {}

    async def restart(self, name: str) -> None:
        self.restarts.append(self.now_s)
        self.started_s = self.now_s
        if self.snapshot:
            self.pos += 100


class Guarded:
    """A collection whose connector is checked every few seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World()
        self.connect, self.watched = Connect(), _Watched()
        self.quarantines = Quarantines({NAME: world.ports}, world.ctx.telemetry, {NAME: world.ports.settings})
        self.group = Group("mariadb", "mysql://localhost/app", Capture(1, "p", "c", "app.t"), (world.ports,))
        monkeypatch.setattr(capture_guard, "MODEL_S", math.inf)  # there is no schema history
        monkeypatch.setattr(capture_guard, "time", SimpleNamespace(monotonic=lambda: self.connect.now_s))

    async def look(self, group: Group, quarantines: Quarantines) -> list[str]:
        return [NAME]

    async def passes(self, seconds: float) -> list[bool]:
        """Guard for so many seconds. Return, for each check, whether the collection was quarantined after it."""
        seen: list[bool] = []
        end = self.connect.now_s + seconds
        while self.connect.now_s < end:
            await _guard(cast(Any, self.connect), Kafka(), self.group, self.quarantines, cast(Any, self), self.watched)
            quarantine = self.quarantines.of(NAME)
            assert quarantine is None or quarantine.reason is Reason.CONNECTOR
            seen.append(quarantine is not None)
            self.connect.now_s += GUARD_S
        return seen


@pytest.mark.parametrize("snapshot", [False, True])
async def test_a_connector_that_fails_soon_after_each_start_is_quarantined_and_started_ever_less_often(
    monkeypatch: pytest.MonkeyPatch, snapshot: bool
) -> None:
    guarded = Guarded(monkeypatch)
    guarded.connect.snapshot = snapshot
    seen = await guarded.passes(600)
    assert True in seen[:8], "within 40 s"
    assert all(seen[seen.index(True) :]), "also while it runs for some seconds"
    pauses = [after - before for before, after in pairwise(guarded.connect.restarts)]
    assert len(pauses) < 8
    assert pauses == sorted(pauses)


@pytest.mark.parametrize("moves", [False, True])
async def test_a_connector_is_in_order_when_it_read_on_or_ran_for_long(
    monkeypatch: pytest.MonkeyPatch, moves: bool
) -> None:
    guarded = Guarded(monkeypatch)
    await guarded.passes(60)
    assert guarded.quarantines.of(NAME) is not None
    guarded.connect.mended = True
    seen = await guarded.passes(WELL_S - 3 * GUARD_S)
    assert all(seen)
    guarded.connect.pos += moves
    seen = await guarded.passes(2 * GUARD_S)
    assert seen == [not moves, not moves]
    await guarded.passes(3 * GUARD_S)
    assert guarded.quarantines.of(NAME) is None
    assert (guarded.watched.count, guarded.watched.away_since_s, guarded.watched.failed_at) == (0, None, None)


async def test_a_failure_beyond_the_one_before_is_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = Guarded(monkeypatch)
    for _ in range(20):
        seen = await guarded.passes(10)
        assert not any(seen)
        guarded.connect.pos += 1
