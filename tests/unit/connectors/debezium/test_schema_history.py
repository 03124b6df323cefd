"""The columns of tables, in the order of their positions, as a schema history records them."""

from __future__ import annotations

import orjson
import pytest

from connectors.debezium.schema_history import columns_in


def change(kind: str, *columns: tuple[str, int], table: str = '"shop"."docs"') -> bytes:
    listed = [{"name": name, "position": position} for name, position in columns]
    return orjson.dumps({"ddl": "...", "tableChanges": [{"type": kind, "id": table, "table": {"columns": listed}}]})


@pytest.mark.parametrize("kind", ["CREATE", "ALTER"])
def test_columns_are_in_the_order_of_their_positions(kind: str) -> None:
    assert columns_in(change(kind, ("Body", 2), ("id", 1), ("title", 3))) == {"shop.docs": ["id", "body", "title"]}


@pytest.mark.parametrize(
    "value",
    [None, b"", b"no json", b"[]", b"{}", b'{"tableChanges": null}', b'{"tableChanges": [{}]}', change("DROP")],
)
def test_what_changes_no_columns_says_nothing(value: bytes | None) -> None:
    assert columns_in(value) == {}
