"""What a plan may do, and must never do, to topics that hold records."""

from __future__ import annotations

import pytest

from schemas.settings import Collection, Kafka, Settings
from topics.captures import new_capture
from topics.catalogue import ASKED, CATALOGUE, DAY_MS, LOG, SUBMITTED, WRITTEN, dead_letter_topic
from topics.provisioning import (
    SMALL_RECORD_BYTES,
    Action,
    DesiredTopic,
    ExistingTopic,
    captured_table,
    captured_topics,
    desired_topics,
    plan,
    reassignment,
    record_limit,
)


def settings(partitions: int = 4, **kafka: int) -> Settings:
    return Settings.model_validate({"kafka": {"partitions": partitions, **kafka}})


def desired(name: str, partitions: int = 4) -> DesiredTopic:
    return next(topic for topic in desired_topics(settings(partitions)) if topic.name == name)


def as_it_is(topic: DesiredTopic, partitions: int | None = None, **config: str) -> dict[str, ExistingTopic]:
    values = dict(topic.config) | {name.replace("_", "."): value for name, value in config.items()}
    return {topic.name: ExistingTopic(topic.name, partitions or topic.partitions, topic.replication, values)}


def only(actions: tuple[Action, ...]) -> Action:
    assert len(actions) == 1
    return actions[0]


def test_what_is_missing_is_created_with_its_configuration() -> None:
    topic = desired(LOG)
    action = only(plan([topic], {}))
    assert (action.kind, action.partitions, action.changes) == ("create", 4, topic.config)
    assert topic.config["retention.ms"] == "-1"


def test_a_plan_over_what_it_made_itself_keeps_everything() -> None:
    every = desired_topics(settings())
    existing = {name: found for topic in every for name, found in as_it_is(topic).items()}
    assert {action.kind for action in plan(every, existing)} == {"keep"}


@pytest.mark.parametrize("name", [topic.name for topic in CATALOGUE if topic.partitions == "log"])
def test_a_topic_whose_offsets_are_versions_is_never_widened(name: str) -> None:
    action = only(plan([desired(name, 8)], as_it_is(desired(name, 4))))
    assert action.kind == "refuse"
    assert "set kafka.partitions to 4" in action.reason


@pytest.mark.parametrize("name", [WRITTEN, ASKED, LOG, SUBMITTED])
def test_partitions_are_never_taken_away(name: str) -> None:
    action = only(plan([desired(name, 2)], as_it_is(desired(name, 4))))
    assert action.kind == "refuse"
    assert "cannot take partitions away" in action.reason


def test_a_topic_without_order_is_widened() -> None:
    action = only(plan([desired(WRITTEN, 8)], as_it_is(desired(WRITTEN, 4))))
    assert (action.kind, action.partitions, action.confirm) == ("widen", 8, "")


def test_widening_a_topic_that_producers_write_needs_a_yes() -> None:
    action = only(plan([desired(SUBMITTED, 8)], as_it_is(desired(SUBMITTED, 4))))
    assert action.kind == "widen"
    assert "overtaken" in action.confirm


def test_keeping_records_longer_needs_no_yes() -> None:
    action = only(plan([desired(WRITTEN)], as_it_is(desired(WRITTEN), retention_ms=str(DAY_MS))))
    assert (action.kind, action.confirm) == ("alter", "")
    assert action.changes == {"retention.ms": str(7 * DAY_MS)}


@pytest.mark.parametrize("kept", [str(30 * DAY_MS), "-1"])
def test_keeping_records_shorter_needs_a_yes(kept: str) -> None:
    action = only(plan([desired(WRITTEN)], as_it_is(desired(WRITTEN), retention_ms=kept)))
    assert action.kind == "alter"
    assert "7 d instead of" in action.confirm


def test_another_clean_up_needs_a_yes() -> None:
    action = only(plan([desired(LOG)], as_it_is(desired(LOG), cleanup_policy="compact")))
    assert (action.kind, action.changes) == ("alter", {"cleanup.policy": "delete"})
    assert action.confirm


def test_a_size_limit_is_raised_and_never_lowered() -> None:
    raised = only(plan([desired(LOG)], as_it_is(desired(LOG), max_message_bytes="1000")))
    assert (raised.kind, raised.changes, raised.confirm) == ("alter", {"max.message.bytes": str(16 * 2**20)}, "")
    assert only(plan([desired(LOG)], as_it_is(desired(LOG), max_message_bytes=str(2**30)))).kind == "keep"


def test_a_topic_may_need_two_steps() -> None:
    topic = desired(WRITTEN, 8)
    kinds = [action.kind for action in plan([topic], as_it_is(topic, partitions=4, retention_ms="1"))]
    assert kinds == ["widen", "alter"]


def test_a_dead_letter_of_a_record_at_the_limit_fits_its_topic() -> None:
    kafka = Kafka()
    for topic in CATALOGUE:
        if topic.dead_letters:
            assert record_limit(dead_letter_topic(topic.name), kafka) > record_limit(topic.name, kafka)
    assert record_limit(WRITTEN, kafka) == SMALL_RECORD_BYTES


def test_every_capture_has_its_topic_dead_letters_heartbeats_and_in_mariadb_its_schema_history() -> None:
    kafka = settings().kafka
    table, lake = (new_capture(kafka, kind, kind, 1, f"shop.{kind}") for kind in ("postgres", "mariadb"))
    names = [topic.name for topic in captured_topics(kafka, [table], mariadb=False)]
    assert names == [table.topic, table.dead_letters, table.heartbeats]
    names = [topic.name for topic in captured_topics(kafka, [lake], mariadb=True)]
    assert names == [lake.topic, lake.dead_letters, lake.heartbeats, lake.schema_history]


def test_topics_of_capture_that_exist_are_planned_as_they_were_made_and_those_of_others_are_not() -> None:
    kafka = settings().kafka
    captures = [new_capture(kafka, "mariadb", "aa", epoch, "shop.posts") for epoch in (1, 2)]
    made = captured_topics(kafka, captures, mariadb=True)
    others = ["crossfade.captured.public.x", "__debezium-heartbeat.other", "orders"]
    every = desired_topics(settings(), [*(topic.name for topic in made), *others])
    existing = {name: found for topic in made for name, found in as_it_is(topic).items()}
    planned = {action.topic.name: action.kind for action in plan(every, existing)}
    assert {planned[topic.name] for topic in made} == {"keep"}
    assert not planned.keys() & {*others}


def test_no_retry_topic_is_made() -> None:
    assert not [topic.name for topic in desired_topics(settings()) if "retry" in topic.name]


def test_a_mariadb_table_without_a_database_is_told_how_to_be_named() -> None:
    with pytest.raises(ValueError, match=r"database\.posts"):
        captured_table(Collection(connector="mariadb", table="posts", key=("id",), text=("body",)))


def test_with_three_replicas_two_must_have_a_record() -> None:
    topic = next(topic for topic in desired_topics(settings(replication=3)) if topic.name == LOG)
    assert topic.config["min.insync.replicas"] == "2"


def with_replicas(topic: DesiredTopic, *replicas: tuple[int, ...], minimum: str, in_sync: int) -> ExistingTopic:
    """Return an existing topic whose partitions have these replicas."""
    config = dict(topic.config) | {"min.insync.replicas": minimum}
    fewest = min(len(at) for at in replicas)
    return ExistingTopic(topic.name, len(replicas), fewest, config, dict(enumerate(replicas)), in_sync)


def three(partitions: int = 2) -> DesiredTopic:
    return next(topic for topic in desired_topics(settings(partitions, replication=3)) if topic.name == LOG)


def test_more_replicas_wanted_are_a_step_of_their_own_and_the_minimum_stays_below_those_there_are() -> None:
    found = with_replicas(three(), (1,), (2, 3, 1), minimum="1", in_sync=1)
    action = only(plan([three()], {LOG: found}))
    assert action.kind == "reassign"
    assert "replication 1 → 3 (partitions 0)" in action.reason
    assert "kafka-reassign-partitions" in action.reason


def test_a_minimum_that_no_write_can_meet_is_set_back() -> None:
    kinds = {a.kind: a for a in plan([three()], {LOG: with_replicas(three(), (1,), (1,), minimum="2", in_sync=1)})}
    assert kinds["alter"].changes == {"min.insync.replicas": "1"}
    assert "reassign" in kinds


@pytest.mark.parametrize(("in_sync", "kind"), [(1, "keep"), (2, "alter"), (3, "alter")])
def test_the_minimum_is_raised_when_enough_replicas_are_in_sync(in_sync: int, kind: str) -> None:
    found = with_replicas(three(), (1, 2, 3), (2, 3, 1), minimum="1", in_sync=in_sync)
    assert only(plan([three()], {LOG: found})).kind == kind


def test_more_replicas_than_wanted_stay_with_their_minimum() -> None:
    found = with_replicas(desired(LOG, 2), (1, 2, 3), (2, 3, 1), minimum="2", in_sync=3)
    assert only(plan([desired(LOG, 2)], {LOG: found})).kind == "keep"


def test_a_broker_that_is_away_lowers_no_minimum() -> None:
    found = with_replicas(three(), (1, 2, 3), (2, 3, 1), minimum="2", in_sync=1)
    assert only(plan([three()], {LOG: found})).kind == "keep"


def test_a_reassignment_keeps_the_replicas_that_are_there_and_spreads_the_new_ones() -> None:
    existing = {LOG: with_replicas(three(), (1,), (2, 3, 1), minimum="1", in_sync=1)}
    actions = plan([three()], existing)
    (entry,) = reassignment(actions, existing, [1, 2, 3, 4])["partitions"]  # type: ignore[index, misc]
    assert entry == {"topic": LOG, "partition": 0, "replicas": [1, 4, 2]}
    assert reassignment(actions, existing, [1, 2]) is None
    assert reassignment((), existing, [1, 2, 3]) is None
