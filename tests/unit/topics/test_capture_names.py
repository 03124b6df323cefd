"""The names of captures: different for every database and source epoch, and the same whenever they are read again."""

from __future__ import annotations

import pytest

from schemas.settings import Collection, Kafka
from topics.captures import Capture, capture_base, earlier_capture, epoch_of_topic, new_capture, origin_of

KAFKA = Kafka()
ACME, GLOBEX = (capture_base(KAFKA, f"postgres/7001/{oid}") for oid in (16384, 16385))


def test_one_table_of_two_databases_shares_no_topic_no_connector_and_no_slot() -> None:
    acme, globex = (new_capture(KAFKA, "postgres", base, 1, "public.articles") for base in (ACME, GLOBEX))
    for name in ("topic", "dead_letters", "heartbeats", "schema_history", "connector", "slot"):
        assert getattr(acme, name) != getattr(globex, name), name


def test_two_epochs_of_one_database_share_nothing_either() -> None:
    first, second = (new_capture(KAFKA, "mariadb", ACME, epoch, "shop.posts") for epoch in (1, 2))
    for name in ("topic", "dead_letters", "heartbeats", "schema_history", "connector"):
        assert getattr(first, name) != getattr(second, name), name


def test_installations_of_another_prefix_share_nothing_of_one_database() -> None:
    assert capture_base(KAFKA, "postgres/7001/5") != capture_base(Kafka(capture_prefix="staging"), "postgres/7001/5")


def test_what_is_recorded_is_read_again() -> None:
    capture = new_capture(KAFKA, "postgres", ACME, 3, 'public.odd"table')
    assert Capture.of(capture.recorded()) == capture


def test_names_are_such_as_kafka_and_postgresql_take() -> None:
    capture = new_capture(KAFKA, "postgres", ACME, 1_000, "public.Dollar$docs")
    assert capture.topic.endswith(".public.Dollar_docs")
    assert len(capture.slot) <= 63
    assert capture.slot == capture.slot.lower().replace("-", "_")


@pytest.mark.parametrize(
    ("epoch", "connector"), [(1, "crossfade-postgres-85e63e78"), (2, "crossfade-postgres-85e63e78-e2")]
)
def test_what_was_captured_before_names_were_recorded_keeps_its_names(epoch: int, connector: str) -> None:
    collection = Collection(dsn="postgresql://u:p@h:5432/shop", table="articles", key=("id",), text=("body",))
    capture = earlier_capture(KAFKA, collection, "public.articles", epoch)
    prefix = "crossfade.capture" if epoch == 1 else "crossfade.capture.e2"
    assert capture == Capture(epoch, prefix, connector, "public.articles")


@pytest.mark.parametrize(
    ("topic", "epoch"),
    [
        (f"crossfade.capture.{ACME}.public.articles", 1),
        (f"crossfade.capture.{ACME}.e12.public.articles-dlt", 12),
        (f"crossfade.capture.{GLOBEX}.e3.public.articles", 0),
        ("crossfade.capture.public.articles", 0),
        (f"other.{ACME}.e4.public.articles", 0),
    ],
)
def test_a_topic_says_in_which_epoch_of_its_database_it_was_made(topic: str, epoch: int) -> None:
    assert epoch_of_topic(KAFKA, ACME, topic) == epoch


def test_the_origin_of_a_change_is_a_database_schema_and_table_in_postgresql_and_a_database_and_table_in_mariadb() -> (
    None
):
    postgres = Collection(dsn="postgresql://u:p@h/ac%20me", table="articles", key=("id",), text=("body",))
    mariadb = Collection(connector="mariadb", dsn="mysql://u:p@h/acme", table="posts", key=("id",), text=("body",))
    output = {"name": "p", "db": "ac me", "schema": "public", "table": "articles"}
    origin = origin_of(Capture(1, "p", "c", "public.articles"), postgres)
    assert origin.difference(output) is None
    assert origin.difference(output | {"schema": None}) == "its source says schema 'None' instead of 'public'"
    origin = origin_of(Capture(1, "p", "c", "globex.posts"), mariadb)
    assert origin.difference({"name": "p", "db": "globex", "table": "posts"}) is None
    assert origin.difference({"name": "p", "db": "acme", "table": "posts"}) is not None
