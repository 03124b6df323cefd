"""The barrier over simulated roles: it is drained when all earlier records have gone through, and not before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from migration.capture import barrier
from migration.capture.barrier import drained
from migration.lag import RoleReads, pipeline
from schemas.records import TopicPartition
from topics.catalogue import EMBEDDED, LOG, RESOLVED, SUBMITTED
from topics.roles import ROLES

CAPTURED = "capture.public.articles"
READS = pipeline([CAPTURED])
# The topic to which a role appends a record for each record that it reads.
WRITES = {"intake": LOG, "capture": LOG, "resolver": RESOLVED, "legacy": None, "embedder": EMBEDDED, "vector": None}


@dataclass
class Played:
    """Topics of two partitions, and roles that take one record of each partition at every poll of the barrier."""

    ends: dict[TopicPartition, int] = field(default_factory=dict)
    commits: dict[str, dict[TopicPartition, int]] = field(default_factory=dict)
    begins: dict[TopicPartition, int] = field(default_factory=dict)
    stopped: tuple[str, ...] = ()
    refused: int = 0
    """How many records of the resolved topic the legacy writer refuses. It appends a refresh entry for each."""
    looks: int = 0

    def append(self, topic: str, count: int = 1, partition: int = 0) -> None:
        self.ends[topic, partition] = self.ends.get((topic, partition), 0) + count

    async def bounds(self, topics: Iterable[str]) -> dict[TopicPartition, tuple[int, int]]:
        wanted = set(topics)
        return {at: (self.begins.get(at, 0), end) for at, end in self.ends.items() if at[0] in wanted}

    async def committed(self, group: str) -> dict[TopicPartition, int]:
        self.looks += 1
        for reads in READS:
            if reads.role not in self.stopped:
                self._step(reads)
        return dict(self.commits.get(group, {}))

    def _step(self, reads: RoleReads) -> None:
        commits = self.commits.setdefault(reads.group, {})
        for place in [place for place in self.ends if place[0] in reads.topics]:
            at = commits.get(place, self.begins.get(place, 0))
            if at >= self.ends[place]:
                continue
            commits[place] = at + 1
            written = WRITES[reads.role]
            if written is not None:
                self.append(written, partition=place[1])
            if reads.role == "legacy" and self.refused:
                self.refused -= 1
                self.append(LOG, partition=place[1])

    def behind(self) -> dict[str, int]:
        left = {}
        for reads in READS:
            commits = self.commits.get(reads.group, {})
            left[reads.role] = sum(
                end - max(commits.get(place, 0), self.begins.get(place, 0))
                for place, end in self.ends.items()
                if place[0] in reads.topics
            )
        return left


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barrier, "_POLL_S", 0)


def test_the_roles_read_what_the_wiring_says() -> None:
    assert {reads.role: reads.topics for reads in READS if reads.role != "capture"} == {
        role.name: role.reads for role in ROLES if role.name not in {"capture", "query", "conductor"}
    }


async def test_what_was_submitted_and_captured_has_gone_through_every_role() -> None:
    played = Played()
    played.append(SUBMITTED, 5)
    played.append(CAPTURED, 3, partition=1)
    assert await drained(played, READS, 10)
    assert played.behind() == dict.fromkeys(WRITES, 0)
    assert played.commits["crossfade-vector"] == {(EMBEDDED, 0): 5, (EMBEDDED, 1): 3}


async def test_nothing_under_way_is_passed_at_once() -> None:
    played = Played(ends={(topic, 0): 0 for topic in (SUBMITTED, CAPTURED, LOG, RESOLVED, EMBEDDED)})
    assert await drained(played, READS, 10)
    assert played.looks == 0


async def test_records_that_came_later_are_not_waited_for() -> None:
    played = Played()
    played.append(SUBMITTED, 2)

    class Busy(Played):
        async def committed(self, group: str) -> dict[TopicPartition, int]:
            self.append(SUBMITTED)
            return await super().committed(group)

    busy = Busy(played.ends)
    assert await drained(busy, READS, 10)
    assert busy.behind()["intake"] > 0


async def test_a_refused_change_and_its_refresh_have_gone_through_too() -> None:
    played = Played(refused=2)
    played.append(SUBMITTED, 4)
    assert await drained(played, READS, 10)
    assert played.refused == 0
    assert played.commits["crossfade-vector"] == {(EMBEDDED, 0): 6}


@pytest.mark.parametrize("role", WRITES)
async def test_a_role_that_stands_still_closes_the_barrier(role: str) -> None:
    played = Played(stopped=(role,))
    played.append(SUBMITTED)
    played.append(CAPTURED, partition=1)
    assert not await drained(played, READS, 0.2)


async def test_records_that_are_no_longer_kept_are_not_waited_for() -> None:
    played = Played(ends={(SUBMITTED, 0): 7}, begins={(SUBMITTED, 0): 7})
    assert await drained(played, READS, 10)


async def test_a_collection_that_was_never_captured_is_not_waited_for() -> None:
    played = Played()
    played.append(SUBMITTED)
    assert await drained(played, pipeline([]), 10)


async def test_what_is_left_is_reported_at_every_look() -> None:
    played, seen = Played(), []
    played.append(SUBMITTED, 3)
    assert await drained(played, READS, 10, lambda role, left: seen.append((role, left)))
    assert seen[:2] == [("intake", 2), ("intake", 1)]
