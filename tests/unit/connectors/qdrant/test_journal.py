"""The journal of the embedded engine repeats the writes that a kill between two flushes must not lose."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.qdrant.engine.journal import Entry, Inserted, Journal, Written
from connectors.qdrant.engine.shard import Shard
from connectors.qdrant.points import batch_of
from tests.contract.vector_stores import DIMENSION, document

WRITTEN = Written(document("a", 2**53 - 1, [(1, 0, 0, 0)], [1], metadata={"f": 1.0, "n": None}))
INSERTED = Inserted(batch_of("c", [document("b", 0, [(0, 1, 0, 0), (0, 0, 1, 0)])]))
ENTRIES: list[Entry] = [WRITTEN, INSERTED]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "journal")
    for entry in ENTRIES:
        journal.append(entry)
    journal.close()
    return tmp_path / "journal"


def test_what_was_appended_is_read_back_until_it_is_cut(filled: Path) -> None:
    journal = Journal(filled)
    assert list(journal.entries()) == ENTRIES
    journal.cut()
    assert list(journal.entries()) == []
    journal.append(INSERTED)
    assert list(journal.entries()) == [INSERTED]
    journal.close()


@pytest.mark.parametrize("cut_off", [1, 100])
def test_an_entry_that_a_power_cut_left_unfinished_ends_the_journal(filled: Path, cut_off: int) -> None:
    data = filled.read_bytes()
    filled.write_bytes(data[:-cut_off])
    assert list(Journal(filled).entries()) == [WRITTEN]
    filled.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert list(Journal(filled).entries()) == [WRITTEN]


def test_opening_writes_the_journal_once_more_under_the_same_guards(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    shard = Shard.create("c", folder, DIMENSION)
    shard.write(document("a", 5))
    shard.write(document("new", 9))
    shard.close()
    journal = Journal(folder / "journal")
    # Entries that the engine has lost, has kept, has in a newer version, and has refused.
    journal.append(Written(document("lost", 3, [(1, 0, 0, 0)] * 2)))
    journal.append(Inserted(batch_of("c", [document("a", 0, [(0, 0, 0, 1)] * 2)])))
    journal.append(Written(document("wrong", 3, [(1, 0, 0)])))
    journal.append(Written(document("a", 6)))
    journal.append(Written(document("new", 8)))
    journal.close()
    again = Shard.open("c", folder)
    stored = again.stored(["a", "lost", "new", "wrong"], content=True)
    assert {name: [point.version for point in points] for name, points in stored.items()} == {
        "a": [6, 0],
        "lost": [3, 3],
        "new": [9],
    }
    assert (folder / "journal").stat().st_size == 0  # its entries are in the engine, and flushed
    again.close()


def test_each_write_is_in_the_journal_until_the_next_flush(tmp_path: Path) -> None:
    shard = Shard.create("c", tmp_path / "c", DIMENSION)
    shard.write(WRITTEN.document)
    shard.insert(INSERTED.points)
    assert shard.journal is not None
    assert list(shard.journal.entries()) == ENTRIES
    shard.flush()
    assert list(shard.journal.entries()) == []
    shard.close()
