"""What a connector is configured to send of the columns of its tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from migration.capture.columns import columns_of, without_tables
from migration.watch.capture import names_table
from schemas.settings import Kafka
from tests.unit.agents.parts import World


def test_no_column_of_a_document_travels_in_a_length_that_no_document_may_have() -> None:
    ports = World().ports
    settings = ports.settings.model_copy(update={"metadata": ("kind", "meta"), "tenant": "owner"})
    config = columns_of(Kafka(max_text_bytes=10), [replace(ports, settings=settings)])
    assert config["column.truncate.to.11.chars"].split(",") == [
        rf"(?-i)public\.docs\.{name}" for name in ("body", "kind", "meta", "owner")
    ]
    assert r"(?-i)public\.docs\.id" in config["column.include.list"].split(",")


def test_a_table_is_left_out_of_every_list_and_the_last_one_stays() -> None:
    ports = World().ports
    assert ports.capture is not None
    others = [replace(ports, capture=replace(ports.capture, table=name)) for name in ("shop.docs", "shop.docs_old")]
    columns = columns_of(Kafka(), [ports, *others])
    config = {
        **columns,
        "table.include.list": r"(?-i)public\.docs,(?-i)shop\.docs,(?-i)shop\.docs_old",
        "other": "kept",
    }
    left = without_tables(config, ["shop.docs", "public.docs"])
    assert left["table.include.list"] == r"(?-i)shop\.docs_old"
    assert {each.rpartition(r"\.")[0] for each in left["column.include.list"].split(",")} == {r"(?-i)shop\.docs_old"}
    assert left["message.key.columns"] == r"(?-i)shop\.docs_old:id"
    assert left["other"] == "kept"
    assert without_tables(left, ["shop.docs_old"]) == left


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("ALTER TABLE docs ADD n int", True),
        ("alter table `Docs` add n int", True),
        ("ALTER TABLE shop.docs ADD n int", True),
        ("ALTER TABLE docs_old ADD n int", False),
        ("ALTER TABLE _docs ADD n int", False),
        ("ALTER TABLE docs$ ADD n int", False),
        ("ALTER TABLE other ADD docs text", False),
        ("ALTER ONLINE TABLE IF EXISTS `shop` . `docs` ADD n int", True),
        ("ALTER TABLE elsewhere.docs ADD n int", False),
        ("CREATE OR REPLACE TABLE docs (id int)", True),
        ("/* a comment */ RENAME TABLE old TO docs", True),
    ],
)
def test_a_table_is_named_by_a_whole_word(statement: str, named: bool) -> None:
    assert names_table(statement, "shop", "docs") == named
