"""A lasting quarantine is recorded before it counts, every worker sees it, and it ends only when that is recorded."""

from __future__ import annotations

import pytest

from connectors.errors import StoreUnavailable
from domain.quarantine import Quarantine, Reason
from migration.quarantine import Quarantines
from tests.unit.agents.parts import NAME, World


def quarantines_of(world: World) -> Quarantines:
    ports = world.ports
    return Quarantines({NAME: ports}, world.ctx.telemetry, {NAME: ports.settings})


async def test_a_stop_survives_its_process_and_reaches_the_others() -> None:
    world = World()
    one, other = quarantines_of(world), quarantines_of(world)
    await one.quarantine(NAME, Reason.CAPTURE_LOST, "the slot is missing")
    assert await other.follow()
    assert other.of(NAME) == Quarantine(NAME, Reason.CAPTURE_LOST)
    assert not await other.follow()


async def test_a_stop_that_cannot_be_recorded_does_not_count_yet() -> None:
    world = World()
    quarantines = quarantines_of(world)
    world.journal.fail("ledger.set_meta", StoreUnavailable("down"))
    with pytest.raises(StoreUnavailable):
        await quarantines.quarantine(NAME, Reason.UNREADABLE, "")
    assert quarantines.of(NAME) is None
    await quarantines.quarantine(NAME, Reason.UNREADABLE, "")
    assert world.legacy.recorded[f"halted.{NAME}"] == Reason.UNREADABLE


async def test_the_first_reason_stays_and_a_new_loss_while_capturing_again_counts() -> None:
    world = World()
    quarantines = quarantines_of(world)
    await quarantines.quarantine(NAME, Reason.UNREADABLE, "")
    await quarantines.quarantine(NAME, Reason.CAPTURE_LOST, "")
    assert world.legacy.recorded[f"halted.{NAME}"] == Reason.UNREADABLE
    world.legacy.recorded[f"halted.{NAME}"] = Reason.RECAPTURING
    await quarantines.follow()
    await quarantines.quarantine(NAME, Reason.CAPTURE_LOST, "again")
    assert world.legacy.recorded[f"halted.{NAME}"] == Reason.CAPTURE_LOST


async def test_what_is_found_of_an_epoch_that_was_left_stops_nothing() -> None:
    """The connector of that epoch is gone by then, and a recapture must not be taken for an interrupted one."""
    world = World()
    quarantines = quarantines_of(world)
    world.legacy.recorded |= {f"halted.{NAME}": Reason.RECAPTURING, f"source_epoch.{NAME}": 4}
    await quarantines.quarantine(NAME, Reason.CAPTURE_LOST, "the connector is missing")
    assert quarantines.of(NAME) is None
    assert world.legacy.recorded[f"halted.{NAME}"] == Reason.RECAPTURING
    await quarantines.follow()
    await quarantines.quarantine(NAME, Reason.CAPTURE_LOST, "the new one is missing, too")
    assert world.legacy.recorded[f"halted.{NAME}"] == Reason.CAPTURE_LOST


async def test_a_mended_collection_is_in_service_again_in_its_new_source_epoch() -> None:
    world = World()
    quarantines = quarantines_of(world)
    await quarantines.quarantine(NAME, Reason.CAPTURE_LOST, "")
    world.legacy.recorded |= {f"halted.{NAME}": 0, f"source_epoch.{NAME}": 4}
    assert await quarantines.follow()
    assert quarantines.of(NAME) is None
    assert quarantines.collections[NAME].source_epoch == 4


async def test_points_of_another_model_are_written_no_more_until_it_is_mended() -> None:
    world = World(phase="primary")
    quarantines = quarantines_of(world)
    await quarantines.quarantine(NAME, Reason.MODEL, "")
    assert quarantines.collections[NAME].effective_phase == "off"
    world.legacy.recorded[f"halted.{NAME}"] = Reason.RECAPTURING
    await quarantines.follow()
    assert quarantines.collections[NAME].effective_phase == "primary"


async def test_a_database_that_does_not_answer_changes_nothing() -> None:
    world = World()
    quarantines = quarantines_of(world)
    await quarantines.quarantine(NAME, Reason.CAPTURE_LOST, "")
    world.journal.fail("ledger.get_meta", StoreUnavailable("down"))
    assert not await quarantines.follow()
    assert quarantines.of(NAME) is not None


async def test_a_stop_that_passes_is_not_recorded_and_gives_way_to_one_that_does_not() -> None:
    world = World()
    quarantines = quarantines_of(world)
    await quarantines.quarantine(NAME, Reason.CONNECTOR, "failed")
    assert f"halted.{NAME}" not in world.legacy.recorded
    assert not await quarantines.follow()
    await quarantines.quarantine(NAME, Reason.CAPTURE_LOST, "")
    assert world.legacy.recorded[f"halted.{NAME}"] == Reason.CAPTURE_LOST
    quarantines.release(NAME)
    assert quarantines.of(NAME) == Quarantine(NAME, Reason.CAPTURE_LOST)


async def test_a_stop_that_passes_ends_with_its_cause() -> None:
    world = World()
    quarantines = quarantines_of(world)
    await quarantines.quarantine(NAME, Reason.UNREACHABLE, "password")
    quarantines.release(NAME)
    assert quarantines.of(NAME) is None
