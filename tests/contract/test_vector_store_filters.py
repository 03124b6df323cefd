"""The contract of the port `VectorStore`: metadata in payloads, and filters over it. For every adapter."""

from __future__ import annotations

import random

import pytest
from msgspec import structs

from connectors.errors import Refused
from connectors.vector_ports import VectorStore
from domain.points import payload_checksum
from schemas.content import Scalar
from schemas.values import Kind
from tests.contract.vector_stores import DIMENSION, document, question


def floats_of(seed: int, count: int) -> list[float]:
    rng = random.Random(seed)
    near = [rng.uniform(-180, 180) for _ in range(count)] + [
        rng.random() * 10 ** rng.randrange(-5, 6) for _ in range(count)
    ]
    far = [rng.uniform(-1, 1) * 10.0 ** rng.randrange(-300, 300) for _ in range(count // 4)]
    return [*near, *far, 5e-324, 1.7976931348623157e308, 0.1, 0.30000000000000004, 1e22, 0.0, 3.0]


async def test_a_float_is_given_back_as_it_was_written_and_found_by_it(store: VectorStore, name: str) -> None:
    floats = dict(enumerate(floats_of(1, 100)))
    await store.prepare(name, DIMENSION, {"f": Kind.FLOAT})
    written = [document(f"d{n}", 1, metadata={"f": value, "t": "x"}) for n, value in floats.items()]
    await store.write(name, written[::2])
    await store.insert(name, written[1::2])
    stored = await store.stored(name, [f"d{n}" for n in floats], content=True)
    for n, value in floats.items():
        (chunk,) = stored[f"d{n}"]
        assert chunk.metadata == {"f": value, "t": "x"}
        assert chunk.checksum == payload_checksum({**structs.asdict(chunk), "document_id": f"d{n}"})
    for n in list(floats)[::20]:
        (hit,) = await store.search(name, question(1, 0, 0, 0, wanted={"f": floats[n]}))
        assert (hit.document_id, hit.metadata["f"]) == (f"d{n}", floats[n])


VALUES: dict[str, Scalar] = {
    "int": 1, "float": 1.0, "half": 0.5, "text": "1", "true": True, "false": False, "zero": 0, "null": None,
    "empty": "", "big": 2**53 + 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (1, {"int", "float"}), (1.0, {"int", "float"}), (0.5, {"half"}), ("1", {"text"}), (True, {"true"}),
        (False, {"false"}), (0, {"zero"}), (None, {"null", "absent"}), ("", {"empty"}),
        (2**53 + 1, {"big"}), (2, set()),
    ],
)  # fmt: skip
async def test_a_filter_is_equality_of_type_and_value(
    store: VectorStore, name: str, wanted: Scalar, expected: set[str]
) -> None:
    documents = [document(key, 1, metadata={"a.b $": value}) for key, value in VALUES.items()]
    await store.write(name, [*documents, document("absent", 1)])
    hits = await store.search(name, question(1, 0, 0, 0, wanted={"a.b $": wanted}))
    assert {hit.document_id for hit in hits} == expected


KINDS_OF_COLUMNS: dict[str, tuple[Kind, Scalar, Scalar]] = {
    "title": (Kind.TEXT, "Grüße", "Gruß"), "year": (Kind.INTEGER, 2024, 2025), "big": (Kind.INTEGER, 2**53 + 1, 2**53),
    "price": (Kind.FLOAT, 0.1, 0.2), "ratio": (Kind.FLOAT32, 0.5, 1.0), "amount": (Kind.DECIMAL, "12.5", "12.50"),
    "open": (Kind.BOOLEAN, True, False), "made": (Kind.TIMESTAMPTZ, "2024-05-01T10:00:00.000000Z", "2024-05-01"),
    "day": (Kind.DATE, "2024-05-01", "2024-05-02"), "hour": (Kind.TIME, "10:00:00.000000", "10:00"),
    "uuid": (Kind.UUID, "4fede126-23ab-5ef4-a76e-4ecc8d366086", "x"), "facts": (Kind.JSON, '{"a":1}', "{}"),
}  # fmt: skip


COLUMNS = {name: kind for name, (kind, _, _) in KINDS_OF_COLUMNS.items()}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_filter_finds_the_same_by_an_index_made_before_or_after_the_points(
    store: VectorStore, name: str, when: str
) -> None:
    if when == "before":
        await store.prepare(name, DIMENSION, COLUMNS)
    own = {column: value for column, (_, value, _) in KINDS_OF_COLUMNS.items()}
    other = {column: value for column, (_, _, value) in KINDS_OF_COLUMNS.items()}
    await store.write(name, [document("own", 1, metadata=own), document("other", 1, metadata=other)])
    await store.write(name, [document("null", 1, metadata=dict.fromkeys(own, None)), document("absent", 1)])
    if when == "after":
        await store.prepare(name, DIMENSION, COLUMNS)
    for column, value in own.items():
        hits = await store.search(name, question(1, 0, 0, 0, wanted={column: value}))
        assert [hit.document_id for hit in hits] == ["own"], column
        hits = await store.search(name, question(1, 0, 0, 0, wanted={column: None}))
        assert [hit.document_id for hit in hits] == ["absent", "null"], column
    assert [hit.document_id for hit in await store.search(name, question(1, 0, 0, 0, wanted=own))] == ["own"]


async def test_a_column_that_changed_its_kind_is_found_by_its_new_values(store: VectorStore, name: str) -> None:
    await store.prepare(name, DIMENSION, {"code": Kind.TEXT})
    await store.write(name, [document("text", 1, metadata={"code": "7"})])
    await store.prepare(name, DIMENSION, {"code": Kind.INTEGER})
    await store.write(name, [document("number", 1, metadata={"code": 7})])
    for wanted, expected in ((7, ["number"]), ("7", ["text"])):
        hits = await store.search(name, question(1, 0, 0, 0, wanted={"code": wanted}))
        assert [hit.document_id for hit in hits] == expected


async def test_a_column_that_no_filter_could_name_is_refused(store: VectorStore, name: str) -> None:
    with pytest.raises(Refused):
        await store.prepare(name, DIMENSION, {'x" or "y': Kind.TEXT})


async def test_several_conditions_must_all_hold(store: VectorStore, name: str) -> None:
    await store.write(name, [document("a", 1, metadata={"x": 1, "y": "q"}), document("b", 1, metadata={"x": 1})])
    assert [h.document_id for h in await store.search(name, question(1, 0, 0, 0, wanted={"x": 1, "y": "q"}))] == ["a"]
    assert [h.document_id for h in await store.search(name, question(1, 0, 0, 0, wanted={"x": 1, "y": None}))] == ["b"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**64])
async def test_metadata_that_no_payload_holds_is_refused(store: VectorStore, name: str, value: Scalar) -> None:
    with pytest.raises(Refused):
        await store.write(name, [document("a", 1, metadata={"x": value})])


async def test_a_filter_name_that_cannot_be_quoted_is_refused(store: VectorStore, name: str) -> None:
    for field in ('x" or "y', "x\\", ""):
        with pytest.raises(Refused):
            await store.search(name, question(1, 0, 0, 0, wanted={field: 1}))
