"""The contract of `LegacyTable`, for every adapter. What only a database does is in `test_legacy_databases.py`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from domain.legacy import LegacyChange, LegacyVerdict
from schemas.content import Content, content_hash
from stack.layout import StackAddresses
from tests.contract.legacy_places import ADAPTERS, Ports, content, deletion, legacy_ports, upsert

APPLIED, SUPERSEDED, REFUSED = LegacyVerdict.APPLIED, LegacyVerdict.SUPERSEDED, LegacyVerdict.REFUSED

pytestmark = pytest.mark.stack


@pytest.fixture(params=ADAPTERS)
async def ports(request: pytest.FixtureRequest, stack: StackAddresses) -> AsyncIterator[Ports]:
    async with legacy_ports(request.param, stack) as opened:
        yield opened


async def verdicts(ports: Ports, *changes: LegacyChange) -> list[LegacyVerdict]:
    return [outcome.verdict for outcome in await ports.table.apply(changes)]


async def test_an_upsert_writes_content_and_version_in_one(ports: Ports) -> None:
    given = content("tïtle", "body 'quoted' \\ %s", "acme", year=1999, price="12.5", ok=True, slug="s")
    assert await verdicts(ports, upsert("a/ü %41", 5, given)) == [APPLIED]
    row = (await ports.table.rows(["a/ü %41"]))["a/ü %41"]
    assert (row.version, row.content) == (5, given)
    assert (await ports.ledger.read(["a/ü %41"]))["a/ü %41"].legacy_version == 5


async def test_a_lower_or_equal_version_changes_nothing(ports: Ports) -> None:
    await verdicts(ports, upsert("a", 5, content("five")))
    assert await verdicts(ports, upsert("a", 5, content("again"))) == [SUPERSEDED]
    assert await verdicts(ports, deletion("a", 4)) == [SUPERSEDED]
    assert (await ports.table.rows(["a"]))["a"].content.text["title"] == "five"


async def test_outcomes_stand_in_the_order_of_the_changes(ports: Ports) -> None:
    await verdicts(ports, upsert("b", 9))
    changes = (upsert("c", 1), upsert("b", 2), upsert("a", 3, content(year=3001)), deletion("z", 4))
    assert await verdicts(ports, *changes) == [APPLIED, SUPERSEDED, REFUSED, APPLIED]


async def test_a_change_that_came_from_the_table_moves_only_the_ledger(ports: Ports) -> None:
    await ports.write_directly("a", "direct", "body")
    assert await verdicts(ports, LegacyChange("a", 7, None, content("resolved"))) == [APPLIED]
    assert await verdicts(ports, LegacyChange("gone", 8, None)) == [APPLIED]
    row = (await ports.table.rows(["a"]))["a"]
    assert (row.version, row.content.text["title"]) == (None, "direct")
    assert {one: row.legacy_version for one, row in (await ports.ledger.read(["a", "gone"])).items()} == {
        "a": 7,
        "gone": 8,
    }


async def test_a_version_may_be_written_that_is_lower_than_the_one_the_ledger_moves_to(ports: Ports) -> None:
    assert await verdicts(ports, LegacyChange("a", 9, 6, content())) == [APPLIED]
    assert (await ports.table.rows(["a"]))["a"].version == 6


async def test_a_deletion_removes_the_row_and_an_older_upsert_does_not_bring_it_back(ports: Ports) -> None:
    await verdicts(ports, upsert("a", 1), upsert("b", 1))
    assert await verdicts(ports, deletion("a", 3)) == [APPLIED]
    assert await verdicts(ports, upsert("a", 2)) == [SUPERSEDED]
    assert await ports.table.existing(["a", "b", "c"]) == {"b"}


async def test_a_direct_write_keeps_the_version_of_the_row(ports: Ports) -> None:
    await verdicts(ports, upsert("a", 4))
    await ports.write_directly("a", "direct", "body")
    row = (await ports.table.rows(["a"]))["a"]
    assert (row.version, row.content.text["title"]) == (4, "direct")


@pytest.mark.parametrize(
    "wrong",
    [content(year=3000), content(title="x" * 41), content(body=None), content(year=10**12), content(year="no number")],
    ids=["check", "too long", "not null", "out of range", "not of the kind"],
)
async def test_a_refused_document_does_not_touch_the_others(ports: Ports, wrong: Content) -> None:
    changes = [upsert(f"d{n}", 5) for n in range(8)]
    changes[3] = replace(changes[3], content=wrong)
    outcomes = await ports.table.apply(changes)
    assert [outcome.verdict for outcome in outcomes] == [REFUSED if n == 3 else APPLIED for n in range(8)]
    assert outcomes[3].reason
    assert await ports.table.existing([f"d{n}" for n in range(8)]) == {f"d{n}" for n in range(8) if n != 3}
    assert (await ports.ledger.read(["d3"]))["d3"].refused_version == 5


async def test_a_value_of_another_row_that_must_be_unique_is_refused_and_leaves_that_row(ports: Ports) -> None:
    await verdicts(ports, upsert("a", 1, content("first", slug="s")), upsert("b", 1, content("second", slug="t")))
    assert await verdicts(ports, upsert("c", 2, content("third", slug="s"))) == [REFUSED]
    assert await verdicts(ports, upsert("b", 2, content("second", slug="s"))) == [REFUSED]
    rows = await ports.table.rows(["a", "b", "c"])
    assert {one: (row.version, row.content.metadata["slug"]) for one, row in rows.items()} == {
        "a": (1, "s"),
        "b": (1, "t"),
    }


async def test_a_refusal_stays_to_be_reported_until_it_was(ports: Ports) -> None:
    wrong = upsert("a", 5, content(year=3000))
    assert await verdicts(ports, wrong) == [REFUSED]
    (again,) = await ports.table.apply([wrong])
    assert (again.verdict, again.unconfirmed) == (SUPERSEDED, True)
    await ports.ledger.confirm_refusals({"a": 4})
    assert (await ports.table.apply([wrong]))[0].unconfirmed
    await ports.ledger.confirm_refusals({"a": 5})
    assert not (await ports.table.apply([wrong]))[0].unconfirmed
    assert await verdicts(ports, upsert("a", 6)) == [APPLIED]


async def test_the_reason_of_a_refusal_has_nothing_of_the_document(ports: Ports) -> None:
    secret = "Zanzibar"
    wrongs = [content(title=secret * 9), content(year=secret), content(slug=secret, year=3000)]
    for number, wrong in enumerate(wrongs):
        (outcome,) = await ports.table.apply([upsert(f"d{number}", 1, wrong)])
        assert outcome.verdict is REFUSED
        assert secret not in (outcome.reason or "")
    await verdicts(ports, upsert("x", 1, content(slug=secret)))
    (outcome,) = await ports.table.apply([upsert("y", 1, content(slug=secret))])
    assert outcome.verdict is REFUSED
    assert secret not in (outcome.reason or "")


async def test_metadata_or_text_that_the_collection_does_not_have_is_refused(ports: Ports) -> None:
    unknown = content().model_copy(update={"metadata": {"colour": "red"}})
    (outcome,) = await ports.table.apply([upsert("a", 1, unknown)])
    assert outcome.verdict is REFUSED
    assert "colour" in (outcome.reason or "")


async def test_a_scan_gives_every_row_once_in_order_while_others_come_and_go(ports: Ports) -> None:
    ids = [f"k{n:03d}" for n in range(50)]
    await ports.table.apply([upsert(one, 1) for one in ids])
    seen: list[str] = []
    after: str | None = None
    while page := await ports.bulk.scan_range(after, None, 7):
        seen += [row.id for row in page]
        after = page[-1].id
        await ports.table.apply([deletion(after, 2), upsert("a" + after, 1)])
    assert seen == ids


async def test_a_scan_takes_ids_of_any_characters(ports: Ports) -> None:
    ids = ["A", "a", "B", "ä", "Z", "z", "a b", "a-b", "ab", "10", "9", "ß", "ss", "日本", "%", "_", "'", '"', "\\"]
    await ports.table.apply([upsert(one, 1) for one in ids])
    seen: list[str] = []
    while page := await ports.bulk.scan_range(seen[-1] if seen else None, None, 3):
        seen += [row.id for row in page]
    assert sorted(seen) == sorted(ids)
    assert await ports.table.existing([*ids, "b"]) == set(ids)


async def test_a_row_without_a_tenant_is_the_default_tenants(ports: Ports) -> None:
    await ports.write_directly("a", "t", "b")
    assert (await ports.table.rows(["a"]))["a"].content.tenant == "default"


async def test_nothing_asked_is_nothing_done(ports: Ports) -> None:
    assert await ports.table.apply([]) == []
    assert await ports.table.rows([]) == {}
    assert await ports.table.existing([]) == set()


async def test_batches_over_the_same_documents_at_the_same_time_end_at_the_highest_version(ports: Ports) -> None:
    ids = [f"d{n}" for n in range(12)]

    async def batch(version: int) -> None:
        order = random.Random(version).sample(ids, len(ids))
        await ports.table.apply([upsert(one, version, content(f"v{version}")) for one in order])

    await asyncio.gather(*(batch(version) for version in range(1, 13)))
    rows = await ports.table.rows(ids)
    assert {(row.version, row.content.text["title"]) for row in rows.values()} == {(12, "v12")}


async def test_what_is_read_back_has_the_hash_of_what_was_written(ports: Ports) -> None:
    samples = [
        content("", "b", year=0, price="0", ok=False, slug=""),
        content(None, "line\nline\t\r\n  end  ", price="-12.0000000001", year=-5),
        content("emoji 🎈", "x" * 50_000, "tenant ü", price="100", ok=True),
    ]
    assert set(await verdicts(ports, *(upsert(f"d{n}", 1, one) for n, one in enumerate(samples)))) == {APPLIED}
    rows = await ports.table.rows([f"d{n}" for n in range(len(samples))])
    assert [content_hash(rows[f"d{n}"].content) for n in range(len(samples))] == [content_hash(s) for s in samples]


async def test_an_id_with_nul_is_no_key_and_never_fails_a_read(ports: Ports) -> None:
    await ports.table.apply([upsert("a", 1)])
    assert await ports.table.existing(["a", "a\x00"]) == {"a"}
    assert set(await ports.table.rows(["a\x00", "a"])) == {"a"}
