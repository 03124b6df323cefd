"""Positions in a database's log sort in the order of the changes: epoch, snapshot before stream, then the log."""

from __future__ import annotations

from typing import Any

import pytest

from domain.positions import is_snapshot, lsn_number, mariadb_position, postgres_position


def postgres(sequence: str, snapshot: str = "false", epoch: int = 1) -> tuple[int, ...]:
    return postgres_position({"sequence": sequence, "snapshot": snapshot}, epoch)


def mariadb(file: str, pos: int, row: int = 0, snapshot: str = "false", epoch: int = 1) -> tuple[int, ...]:
    return mariadb_position({"file": file, "pos": pos, "row": row, "snapshot": snapshot}, epoch)


IN_ORDER_POSTGRES = [
    postgres('[null,"900"]', "first"),
    postgres('[null,"100"]'),
    postgres('["100","150"]'),
    postgres('["100","160"]'),
    # This transaction began before the one above and committed after it, so its change has a lower LSN.
    postgres('["160","120"]'),
    postgres('[null,"1"]', "true", epoch=2),
]
IN_ORDER_MARIADB = [
    mariadb("mysqld-bin.000009", 999, snapshot="last"),
    mariadb("mysqld-bin.000009", 120),
    mariadb("mysqld-bin.000009", 120, row=1),
    mariadb("mysqld-bin.000009", 1000),
    mariadb("mysqld-bin.000010", 4),
    mariadb("mysqld-bin.1000000", 4),
    mariadb("mysqld-bin.000001", 4, epoch=2),
]


@pytest.mark.parametrize("positions", [IN_ORDER_POSTGRES, IN_ORDER_MARIADB], ids=["postgres", "mariadb"])
def test_positions_rise_as_the_changes_happened(positions: list[tuple[int, ...]]) -> None:
    assert positions == sorted(set(positions))


def test_the_first_streamed_transaction_has_no_commit_before_it() -> None:
    assert postgres('[null,"22407592"]') == (1, 1, 0, 22407592)


@pytest.mark.parametrize("source", [{}, {"sequence": None}, {"sequence": "no json"}, {"sequence": '["1"]'}])
def test_a_postgres_source_without_a_sequence_is_an_error(source: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the codec's messages differ, the class is the contract
        postgres_position(source, 1)


@pytest.mark.parametrize("source", [{}, {"file": None}, {"file": ""}, {"file": "binlog"}, {"file": "bin.x"}])
def test_a_mariadb_source_without_a_binlog_number_is_an_error(source: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no binlog number"):
        mariadb_position(source, 1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", True),
        (True, True),
        ("first", True),
        ("last", True),
        ("incremental", True),
        ("false", False),
        (False, False),
        ("none", False),
        ("", False),
    ],
)
def test_debezium_marks_snapshot_rows_in_several_words(value: object, expected: bool) -> None:
    assert is_snapshot({"snapshot": value}) is expected
    assert is_snapshot({}) is False


def test_log_sequence_numbers_compare_as_numbers() -> None:
    assert lsn_number("0/FFFFFFFF") < lsn_number("1/0") < lsn_number("A/1") < lsn_number("10/0")
