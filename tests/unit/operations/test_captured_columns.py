"""What a connector is told to send of the columns of its tables."""

from __future__ import annotations

from dataclasses import replace

from operations.captured_columns import columns_of
from schemas.settings import Kafka
from tests.unit.agents.parts import World


def test_no_column_of_a_document_travels_in_a_length_that_no_document_may_have() -> None:
    ports = World().ports
    settings = ports.settings.model_copy(update={"metadata": ("kind", "meta"), "tenant": "owner"})
    config = columns_of(Kafka(max_text_bytes=10), [replace(ports, settings=settings)])
    assert config["column.truncate.to.11.chars"].split(",") == [
        rf"public\.docs\.{name}" for name in ("body", "kind", "meta", "owner")
    ]
    assert r"public\.docs\.id" in config["column.include.list"].split(",")
