"""The states that a process knows: only newer ones count, wrong records are passed over, an edited phase is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from connectors.errors import Misconfigured
from domain.rollout.commands import begun
from migration.rollout.states import RolloutStates, _reconcile, check_phases, edited_phase, recorded_state
from migration.state import CollectionState
from schemas.cloudevents import encode
from schemas.records import Received
from schemas.rollout import PhaseChanged
from schemas.settings import Collection
from tests.unit.agents.parts import NAME, World
from topics.catalogue import ROLLOUT_PHASES

NOW = 1_700_000_000_000


def state(phase: Any = "dual_write", revision: int = 1, **other: Any) -> PhaseChanged:
    return begun(NAME, phase, NOW).model_copy(update={"revision": revision, **other})


def record(value: PhaseChanged | bytes | None) -> Received:
    if not isinstance(value, PhaseChanged):
        return Received(ROLLOUT_PHASES, 0, 0, b"docs", value, (), NOW)
    sent = encode(value, topic=ROLLOUT_PHASES, key=NAME, event_id="e", source="test", time_ms=NOW)
    return Received(ROLLOUT_PHASES, 0, 0, sent.key, sent.value, sent.headers, NOW)


def test_only_a_newer_state_counts() -> None:
    states = RolloutStates()
    taken = [states.take_record(record(state("shadow", number))) for number in (2, 1, 2, 3)]
    assert taken == [True, False, False, True]
    assert states.known[NAME].revision == 3


@pytest.mark.parametrize(
    "value", [None, b"", b"{", b"{}", b'{"collection": "docs", "phase": "nothing", "revision": 9}']
)
def test_a_record_that_is_no_state_is_passed_over(value: bytes | None) -> None:
    states = RolloutStates()
    assert not states.take_record(record(value))
    assert states.phase(NAME) is None


def test_a_moment_beyond_all_years_is_no_state() -> None:
    good = record(state())
    wrong = good._replace(value=(good.value or b"").replace(str(NOW).encode(), b"1" + b"0" * 30))
    assert not RolloutStates().take_record(wrong)


def test_a_phase_that_was_edited_after_the_rollout_began_is_refused_with_the_commands() -> None:
    states = RolloutStates({NAME: state("shadow", 3, began_as="off")})
    edited, kept = (Collection(table="docs", key=("id",), text=("body",), phase=phase) for phase in ("primary", "off"))
    assert edited_phase(NAME, kept, states) is None
    assert edited_phase("other", edited, states) is None
    with pytest.raises(Misconfigured, match=f"crossfade migrate promote {NAME}, crossfade migrate rollback {NAME}"):
        check_phases({NAME: edited}, states)


async def test_a_collection_that_is_opened_late_gets_the_phase_that_is_known() -> None:
    world, states = World(), RolloutStates({NAME: state("shadow", 2)})
    collections = dict(world.collections)
    task = asyncio.create_task(_reconcile(states, collections))
    await asyncio.sleep(0)
    task.cancel()
    assert collections[NAME].phase == "shadow"


async def test_a_copy_that_cannot_be_read_is_not_the_same_as_none() -> None:
    kept = CollectionState(World().ports.ledger, NAME)
    assert await recorded_state(kept) is None
    await kept.set_rollout("{")
    with pytest.raises(Misconfigured):
        await recorded_state(kept)
