"""The contract of `Ledger`, for every adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from connectors.ports import Ledger
from connectors.sql.databases import open_legacy
from domain.fold import LedgerState
from domain.ledger import LedgerRow, VectorMark
from stack.layout import StackAddresses
from tests.contract.legacy_places import ADAPTERS, Ports, legacy_ports, until_waiting, upsert

pytestmark = pytest.mark.stack

STATE = LedgerState(
    version=(3 << 40) | 7,
    written=5,
    pending=True,
    removed=True,
    refresh=True,
    legacy_position=(2, 1, 2**60, 0),
    producer_positions=((0, 1, 17), (3, 2, 4)),
)


@pytest.fixture(params=ADAPTERS)
async def ports(request: pytest.FixtureRequest, stack: StackAddresses) -> AsyncIterator[Ports]:
    async with legacy_ports(request.param, stack) as opened:
        yield opened


async def test_a_folded_state_is_read_back_as_it_was(ports: Ports) -> None:
    await ports.ledger.save_fold({"a": LedgerRow(STATE), "A": LedgerRow(LedgerState(version=1)), "a ": LedgerRow()})
    rows = await ports.ledger.read(["a", "A", "a ", "missing"])
    assert rows["a"] == LedgerRow(STATE)
    assert rows["A"].state == LedgerState(version=1)
    assert set(rows) == {"a", "A", "a "}


async def test_a_fold_moves_only_forward(ports: Ports) -> None:
    await ports.ledger.save_fold({"a": LedgerRow(LedgerState(version=5, written=5))})
    await ports.ledger.save_fold(
        {"a": LedgerRow(LedgerState(version=5, written=1)), "b": LedgerRow(LedgerState(version=1))}
    )
    await ports.ledger.save_fold({"a": LedgerRow(LedgerState(version=4, written=4))})
    assert (await ports.ledger.read(["a"]))["a"].state == LedgerState(version=5, written=5)
    await ports.ledger.save_fold({"a": LedgerRow(LedgerState(version=6))})
    assert (await ports.ledger.read(["a"]))["a"].state == LedgerState(version=6)


async def test_each_writer_leaves_what_the_others_own(ports: Ports) -> None:
    await ports.table.apply([upsert("a", 3)])
    await ports.ledger.save_fold({"a": LedgerRow(STATE, legacy_version=99, refused_version=99, vector_version=99)})
    await ports.ledger.vectors_written([VectorMark("a", 2, "hash", 4, "model")])
    assert (await ports.ledger.read(["a"]))["a"] == LedgerRow(STATE, 3, 0, 2, "hash", 4, "model")


async def test_a_vector_mark_moves_only_forward(ports: Ports) -> None:
    await ports.ledger.vectors_written([VectorMark("a", 2, "two", 2, "m"), VectorMark("b", 1, None, 0, "m")])
    await ports.ledger.vectors_written([VectorMark("a", 1, "one", 1, "m"), VectorMark("a", 2, "other", 1, "m")])
    rows = await ports.ledger.read(["a", "b"])
    assert (rows["a"].vector_version, rows["a"].content_hash, rows["a"].chunk_count) == (2, "two", 2)
    assert (rows["b"].vector_version, rows["b"].content_hash, rows["b"].chunk_count) == (1, None, 0)


async def test_the_newest_mark_of_a_document_in_one_call_wins(ports: Ports) -> None:
    marks = [
        VectorMark("a", 3, "three", 3, "m"),
        VectorMark("a", 5, "five", 5, "m"),
        VectorMark("a", 4, "four", 4, "m"),
    ]
    await ports.ledger.vectors_written(marks)
    assert (await ports.ledger.read(["a"]))["a"].content_hash == "five"


async def test_recorded_numbers_are_kept_and_replaced(ports: Ports) -> None:
    assert await ports.ledger.get_meta("partition_epoch") is None
    await ports.ledger.set_meta("partition_epoch", 1)
    await ports.ledger.set_meta("partition_epoch", 2)
    await ports.ledger.set_meta("Partition_epoch", 9)
    assert await ports.ledger.get_meta("partition_epoch") == 2


async def test_recorded_identities_are_kept_and_replaced(ports: Ports) -> None:
    assert await ports.ledger.identity("server") is None
    await ports.ledger.set_identity("server", "7435-é")
    await ports.ledger.set_identity("server", "x" * 1000)
    await ports.ledger.set_identity("Server ", "another")
    assert await ports.ledger.identity("server") == "x" * 1000


async def test_folds_and_marks_and_writes_at_the_same_time_do_not_lose_each_other(ports: Ports) -> None:
    ids = [f"d{n}" for n in range(20)]

    async def fold(version: int) -> None:
        await ports.ledger.save_fold({one: LedgerRow(LedgerState(version=version)) for one in reversed(ids)})

    async def mark(version: int) -> None:
        await ports.ledger.vectors_written([VectorMark(one, version, "h", 1, "m") for one in ids])

    async def write(version: int) -> None:
        await ports.table.apply([upsert(one, version) for one in reversed(ids)])

    await asyncio.gather(*(work(version) for version in range(1, 8) for work in (fold, mark, write)))
    rows = await ports.ledger.read(ids)
    assert {(row.state.version, row.vector_version, row.legacy_version) for row in rows.values()} == {(7, 7, 7)}


async def test_empty_calls_do_nothing(ports: Ports) -> None:
    await ports.ledger.save_fold({})
    await ports.ledger.vectors_written([])
    await ports.ledger.confirm_refusals({})
    assert await ports.ledger.read([]) == {}


async def test_the_rows_are_paged_in_the_order_of_their_ids(ports: Ports) -> None:
    ids = ["a", "A", "b ", "b", "ä", "1"]
    await ports.ledger.save_fold({one: LedgerRow(STATE) for one in ids})
    first = await ports.ledger.page("", 4)
    assert list(first) == sorted(ids)[:4]
    assert list(await ports.ledger.page(list(first)[-1], 4)) == sorted(ids)[4:]
    assert await ports.ledger.page("ä", 4) == {}


async def test_versions_are_put_back_only_where_they_are_still_what_was_read(ports: Ports) -> None:
    await ports.table.apply([upsert("a", 7)])
    await ports.ledger.save_fold({"a": LedgerRow(LedgerState(version=9, written=3))})
    await ports.ledger.vectors_written([VectorMark("a", 8, "hash", 1, "model")])
    await ports.ledger.put_back("a", {"version": (9, 0), "legacy_version": (6, 0), "vector_version": (8, 2)})
    row = (await ports.ledger.read(["a"]))["a"]
    assert (row.state.version, row.state.written, row.legacy_version, row.vector_version) == (0, 3, 7, 2)
    await ports.ledger.save_fold({"a": LedgerRow(LedgerState(version=1))})
    assert (await ports.ledger.read(["a"]))["a"].state == LedgerState(version=1)


async def test_a_count_is_raised_in_one_step_by_each_of_those_who_raise_it_together(ports: Ports) -> None:
    raised = await asyncio.gather(*(ports.ledger.advance("count") for _ in range(10)))
    assert sorted(raised) == list(range(1, 11))
    assert await ports.ledger.get_meta("count") == 10


@asynccontextmanager
async def another_session(ports: Ports) -> AsyncIterator[Ledger]:
    """Open the same ledger over other connections, as another worker does."""
    if ports.place is None:
        yield ports.ledger
        return
    legacy = await open_legacy("documents", ports.place.collection(), ports.place.dsn)
    try:
        yield legacy.ledger
    finally:
        await legacy.close()


async def test_of_workers_that_claim_together_all_get_what_the_first_one_recorded(ports: Ports) -> None:
    async with another_session(ports) as other:
        for name in ("one", "two", "three"):
            both = [(ledger, n) for n in range(1, 5) for ledger in (ports.ledger, other)]
            numbers = await asyncio.gather(*(ledger.claim(name, n) for ledger, n in both))
            texts = await asyncio.gather(*(ledger.claim_identity(name, f"é {n}") for ledger, n in both))
            assert set(numbers) == {await other.get_meta(name)}
            assert set(texts) == {await other.identity(name)}
            assert numbers[0] in range(1, 5)
        await ports.ledger.set_meta("one", 9)
        assert await other.claim("one", 3) == 9


async def test_a_claim_waits_for_one_that_is_still_ending(ports: Ports) -> None:
    place = ports.place
    if place is None:
        pytest.skip("in memory nothing is between a claim and its end")
    async with place.connection() as connection:
        await connection.execute("BEGIN")
        await connection.execute(f"INSERT INTO {place.schema}.crossfade_meta (name, value) VALUES ('one', 1)")
        claim = asyncio.create_task(ports.ledger.claim("one", 2))
        await until_waiting(place, "crossfade_meta")
        await connection.execute("COMMIT")
        assert await claim == 1


async def test_a_number_that_several_raise_together_never_goes_back(ports: Ports) -> None:
    async with another_session(ports) as other:
        values = [5, 9, 2, 7, 9, 1]
        await asyncio.gather(*((ports.ledger, other)[n % 2].raise_to("count", v) for n, v in enumerate(values)))
        assert await other.get_meta("count") == 9
        await ports.ledger.raise_to("count", 4)
        assert await other.get_meta("count") == 9
        await other.raise_to("count", 10)
        assert await ports.ledger.get_meta("count") == 10


async def test_what_did_not_reach_the_table_is_taken_when_it_is_delivered_again(ports: Ports) -> None:
    await ports.table.apply([upsert("there", 3), upsert("behind", 3)])
    for name, written in {"there": 3, "behind": 5}.items():
        state = replace(STATE, version=9, written=written)
        await ports.ledger.save_fold({name: LedgerRow(state)})
    assert await ports.ledger.forget_undelivered() == 1
    rows = await ports.ledger.read(["there", "behind"])
    assert rows["there"].state == replace(STATE, version=9, written=3)
    forgotten = replace(STATE, version=9, written=5, pending=False, removed=False, producer_positions=())
    assert rows["behind"].state == forgotten
