"""What is reported of a connector's replication position, according to the slot, the binary log and Connect."""

from __future__ import annotations

import pytest

from connectors.kafka.connect import ConnectorState, ConnectorStatus
from connectors.sql.mariadb.binlog import Binlog
from connectors.sql.postgres.slots import SlotPlace
from migration.capture.positions import ReplicationPosition, _of_binlog, _of_slot

LOG = Binlog({"binlog.000007": 1000, "binlog.000008": 500, "binlog.000009": 300}, "binlog.000009", 250)


def status(state: ConnectorState = "RUNNING", *tasks: ConnectorState) -> ConnectorStatus:
    return ConnectorStatus("crossfade-x", state, tasks or ("RUNNING",), None)


@pytest.mark.parametrize(
    ("file", "position", "behind"),
    [
        ("binlog.000009", 250, 0),
        ("binlog.000009", 200, 50),
        ("binlog.000008", 500, 250),
        ("binlog.000007", 900, 100 + 500 + 250),
        ("binlog.000006", 900, None),
    ],
)
def test_bytes_behind_are_counted_over_the_files_that_are_kept(file: str, position: int, behind: int | None) -> None:
    assert LOG.behind_bytes(file, position) == behind


def test_a_place_in_the_binary_log_is_that_of_the_connectors_offset() -> None:
    found = _of_binlog(status(), LOG, {"file": "binlog.000008", "pos": 400, "gtids": "0-1-7"})
    assert found == ReplicationPosition(
        "crossfade-x", "RUNNING", None, "binlog.000008:400", "binlog.000009:250", 350, 1800, None
    )
    purged = _of_binlog(status(), LOG, {"file": "binlog.000001", "pos": 4})
    assert (purged.behind_bytes, purged.note) == (None, "the file binlog.000001 was purged from the binary log")
    assert _of_binlog(status(), LOG, {}).position is None


@pytest.mark.parametrize(
    ("slot", "note"),
    [
        (SlotPlace(True, "reserved", "0/10", "0/20", 16, 32), None),
        (SlotPlace(True, "extended", "0/10", "0/20", 16, 32), None),
        (SlotPlace(False, "reserved", "0/10", "0/20", 16, 32), "nobody reads the replication slot"),
        (SlotPlace(False, "lost", None, "0/20", None, None), "the replication slot is lost"),
        (SlotPlace(True, "unreserved", "0/10", "0/20", 16, 32), "the replication slot is unreserved"),
        (None, "the replication slot crossfade_x is missing"),
    ],
)
def test_what_is_wrong_with_a_slot_is_reported(slot: SlotPlace | None, note: str | None) -> None:
    found = _of_slot(status(), slot)
    assert (found.note or "").startswith(note or "")
    assert (found.note is None) is (note is None)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (status(), "RUNNING"),
        (status("RUNNING", "FAILED"), "FAILED"),
        (status("FAILED"), "FAILED"),
        (status("PAUSED", "PAUSED"), "PAUSED"),
        (ConnectorStatus("crossfade-x", "MISSING", (), None), "MISSING"),
    ],
)
def test_a_connector_runs_only_with_its_tasks(known: ConnectorStatus, expected: str) -> None:
    assert _of_slot(known, None).state == expected
