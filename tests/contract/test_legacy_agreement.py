"""The in-memory legacy side and the databases agree on random histories. A seed that finds a difference is kept."""

from __future__ import annotations

import random

import pytest

from domain.fold import LedgerState
from domain.ledger import LedgerRow, VectorMark
from domain.legacy import LegacyChange
from schemas.content import Content
from stack.layout import StackAddresses
from tests.contract.legacy_places import DATABASES, Ports, content, legacy_ports, memory_ports

pytestmark = pytest.mark.stack

IDS = ["a", "A", "b", "ä", "a/b", "a b", "10", "9"]


def any_content(rng: random.Random) -> Content:
    return content(
        rng.choice([None, "", "t", "T" * 40, "T" * 41]),
        rng.choice(["body", "other", "", None] if rng.random() < 0.2 else ["body", "other", ""]),
        rng.choice(["default", "acme"]),
        year=rng.choice([None, 0, -7, 2999, 3000, 2**31] if rng.random() < 0.3 else [None, 0, 2999]),
        price=rng.choice([None, "1.5", "0"]),
        ok=rng.choice([None, True, False]),
        slug=rng.choice([None, None, "s", "t"]),
    )


def any_change(rng: random.Random, document_id: str) -> LegacyChange:
    version = rng.randrange(1, 30)
    written = rng.choice([None, version, max(1, version - 1)])
    return LegacyChange(document_id, version, written, any_content(rng) if rng.random() < 0.75 else None)


async def step(rng: random.Random, ports: Ports) -> object:
    some = rng.sample(IDS, rng.randrange(1, 4))
    choice = rng.randrange(7)
    if choice <= 2:
        # Of two documents that want the same unique value, the first one that is written gets it. The databases write
        # in the order of the ids, so give the changes in that order.
        outcomes = await ports.table.apply(sorted((any_change(rng, one) for one in some), key=lambda c: c.id))
        return [(outcome.verdict, outcome.unconfirmed) for outcome in outcomes]
    if choice == 3:
        state = LedgerState(version=rng.randrange(30), written=rng.randrange(30), pending=rng.random() < 0.5)
        await ports.ledger.save_fold({one: LedgerRow(state) for one in some})
    elif choice == 4:
        await ports.ledger.confirm_refusals({one: rng.randrange(30) for one in some})
    elif choice == 5:
        marks = [VectorMark(one, rng.randrange(30), rng.choice([None, "h"]), rng.randrange(5), "m") for one in some]
        await ports.ledger.vectors_written(marks)
    else:
        await ports.write_directly(some[0], rng.choice(["x", "y"]), "direct")
    return None


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("adapter", DATABASES)
async def test_memory_and_database_agree_on_any_history(adapter: str, seed: int, stack: StackAddresses) -> None:
    memory = memory_ports()
    async with legacy_ports(adapter, stack) as real:
        first, second = random.Random(seed), random.Random(seed)
        for number in range(120):
            assert await step(first, memory) == await step(second, real), f"seed {seed}, step {number}"
            assert await memory.ledger.read(IDS) == await real.ledger.read(IDS), f"seed {seed}, step {number}"
            assert await memory.table.rows(IDS) == await real.table.rows(IDS), f"seed {seed}, step {number}"
        assert [row.id for row in await memory.bulk.scan_range(None, None, 50)] == [
            r.id for r in await real.bulk.scan_range(None, None, 50)
        ]
        assert await memory.table.existing(IDS) == await real.table.existing(IDS)
