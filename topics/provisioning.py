"""A pure plan of the topics: which must exist, and how to change the existing ones. No broker is asked here.

A plan never removes a partition and never lowers a limit. It shortens a retention only with confirmation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from schemas.settings import Collection, Kafka, Settings
from topics.captures import HEARTBEAT_PREFIX, SCHEMA_HISTORY, Capture, database_of
from topics.catalogue import (
    CATALOGUE,
    DAY_MS,
    DEAD_LETTER_SUFFIX,
    FOR_EVER,
    SUBMITTED,
    Topic,
    dead_letter_topic,
)
from topics.roles import readers_of

# Kafka's own default for a topic, set explicitly so that a broker with another default makes no difference.
SMALL_RECORD_BYTES = 1_048_588
# The bytes that the error headers of a dead letter may add to a record of the maximum size.
DEAD_LETTER_HEADER_BYTES = 64 * 1024
DEAD_LETTER_RETENTION_MS = 30 * DAY_MS
CAPTURE_RETENTION_MS = 7 * DAY_MS
# The dead letters that were replayed. A consumer group's commits would expire after a week, long before the letters.
REPLAYED = "crossfade.dead-letters.replayed.v1"
# The newest count of each collection's source, which reveals a database that was restored from a backup.
SOURCES_SEEN = "crossfade.sources.seen.v1"
_RETENTION, _CLEANUP, _SIZE, _IN_SYNC = "retention.ms", "cleanup.policy", "max.message.bytes", "min.insync.replicas"
CONFIG_KEYS = (_RETENTION, _CLEANUP, _SIZE, _IN_SYNC)

_BY_NAME = {topic.name: topic for topic in CATALOGUE}


class Widening(Enum):
    """The effect of another number of partitions on a topic."""

    FREE = "free"
    ORDER = "order"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class DesiredTopic:
    """A topic as it should be. `config` has Kafka's names and values; `made_for` names the users of the topic."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    widening: Widening
    made_for: str


@dataclass(frozen=True, slots=True)
class ExistingTopic:
    """A topic as the brokers describe it; `config` has at least the keys of `CONFIG_KEYS`.

    `replication` is the replica count of the partition with the fewest replicas. `replicas` are the brokers of each
    partition, the preferred leader first. `in_sync` is the number of replicas in sync in the partition with the fewest.
    """

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    replicas: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    in_sync: int | None = None


# `reassign`: partitions have too few replicas. The operator decides which broker gets a copy: see `reassignment`.
ActionKind = Literal["create", "widen", "alter", "keep", "refuse", "reassign"]


@dataclass(frozen=True, slots=True)
class Action:
    """One step of a plan. `changes` are the configuration values to set; `confirm` is the reason to ask first."""

    kind: ActionKind
    topic: DesiredTopic
    reason: str
    partitions: int = 0
    changes: Mapping[str, str] = field(default_factory=dict)
    confirm: str = ""


def record_limit(topic: str, kafka: Kafka) -> int:
    """Return the largest record in bytes, batch overhead included, that a topic takes as provisioned."""
    source = topic.removesuffix(DEAD_LETTER_SUFFIX)
    known = _BY_NAME.get(source)
    small = known is not None and not known.large
    limit = SMALL_RECORD_BYTES if small else kafka.max_record_bytes
    return limit + DEAD_LETTER_HEADER_BYTES if source != topic else limit


def largest_record(kafka: Kafka) -> int:
    """Return the largest record in bytes that any topic takes."""
    return max(SMALL_RECORD_BYTES, kafka.max_record_bytes) + DEAD_LETTER_HEADER_BYTES


def captured_table(collection: Collection) -> str:
    """Return the table as Debezium names it: `schema.table` (PostgreSQL) or `database.table` (MariaDB).

    Without a schema PostgreSQL's is `public`; MariaDB's database is the one of the collection's `dsn`. Raises
    ValueError when a MariaDB table names no database in either place.
    """
    if "." in collection.table:
        return collection.table
    if collection.connector == "postgres":
        return f"public.{collection.table}"
    database = database_of(collection.dsn or "")
    if not database:
        raise ValueError(f"table {collection.table!r}: name its database, as in `database.{collection.table}`")
    return f"{database}.{collection.table}"


def desired_topics(settings: Settings, existing: Iterable[str] = ()) -> tuple[DesiredTopic, ...]:
    """Return every topic that the catalogue needs, and capture's topics among the `existing` names.

    Missing topics of capture are created with their connector, because only a database knows their names.
    """
    kafka = settings.kafka
    found: list[DesiredTopic] = []
    for topic in CATALOGUE:
        found.append(_catalogued(topic, kafka))
        if topic.dead_letters:
            found.append(_dead_letters(topic.name, kafka, readers_of(topic)))
    found.append(_compacted(REPLAYED, kafka, "the replay of dead letters"))
    found.append(_compacted(SOURCES_SEEN, kafka, "the watch of the databases"))
    found.extend(_captured_already(kafka, name) for name in sorted(existing) if is_of_capture(kafka, name))
    return tuple(found)


def is_of_capture(kafka: Kafka, topic: str) -> bool:
    """Return whether a topic belongs to capture, by its name."""
    own = (f"{kafka.capture_prefix}.", f"{HEARTBEAT_PREFIX}{kafka.capture_prefix}.")
    return topic.startswith(own) or topic == f"{HEARTBEAT_PREFIX}{kafka.capture_prefix}"


def captured_topics(kafka: Kafka, captures: Iterable[Capture], *, mariadb: bool) -> tuple[DesiredTopic, ...]:
    """Return the topics of captures from one kind of database."""
    found: dict[str, DesiredTopic] = {}
    for capture in sorted(captures, key=lambda each: each.topic):
        found[capture.topic] = _captured(capture.topic, kafka, capture.table)
        found[capture.dead_letters] = _dead_letters(capture.topic, kafka, ("capture",))
        found[capture.heartbeats] = _debezium(capture.heartbeats, kafka, DAY_MS)
        if mariadb:
            found[capture.schema_history] = _debezium(capture.schema_history, kafka, FOR_EVER)
    return tuple(found.values())


def _captured_already(kafka: Kafka, name: str) -> DesiredTopic:
    if name.startswith(HEARTBEAT_PREFIX):
        return _debezium(name, kafka, DAY_MS)
    if name.endswith(SCHEMA_HISTORY):
        return _debezium(name, kafka, FOR_EVER)
    if name.endswith(DEAD_LETTER_SUFFIX):
        return _dead_letters(name.removesuffix(DEAD_LETTER_SUFFIX), kafka, ("capture",))
    return _captured(name, kafka, ".".join(name.split(".")[-2:]))


def plan(desired: Sequence[DesiredTopic], existing: Mapping[str, ExistingTopic]) -> tuple[Action, ...]:
    """Return the steps for each topic, in the given order; a topic may need several steps."""
    actions: list[Action] = []
    for topic in desired:
        found = existing.get(topic.name)
        if found is None:
            actions.append(Action("create", topic, f"for {topic.made_for}", topic.partitions, topic.config))
            continue
        possible = (_partition_step(topic, found), _replication_step(topic, found), _config_step(topic, found))
        steps = [step for step in possible if step is not None]
        actions.extend(steps or [Action("keep", topic, "as it should be", found.partitions)])
    return tuple(actions)


def reassignment(
    actions: Sequence[Action], existing: Mapping[str, ExistingTopic], brokers: Sequence[int]
) -> dict[str, object] | None:
    """Return the input of `kafka-reassign-partitions` for the planned reassignments, None if there are none.

    A partition keeps its replicas and gets more on the brokers that hold the fewest of these partitions. Also return
    None if there are fewer brokers than wanted replicas.
    """
    wanted = [action for action in actions if action.kind == "reassign"]
    if not wanted or len(brokers) < max(action.topic.replication for action in wanted):
        return None
    held = dict.fromkeys(brokers, 0)
    for action in wanted:
        for at in existing[action.topic.name].replicas.values():
            held.update({broker: held.get(broker, 0) + 1 for broker in at})
    partitions: list[dict[str, object]] = []
    for action in wanted:
        for number, at in sorted(existing[action.topic.name].replicas.items()):
            free = sorted((broker for broker in brokers if broker not in at), key=lambda broker: (held[broker], broker))
            added = free[: max(0, action.topic.replication - len(at))]
            held.update({broker: held[broker] + 1 for broker in added})
            if added:
                partitions.append({"topic": action.topic.name, "partition": number, "replicas": [*at, *added]})
    return {"version": 1, "partitions": partitions}


def _replication_step(topic: DesiredTopic, found: ExistingTopic) -> Action | None:
    if found.replication >= topic.replication:
        return None  # more copies than wanted do no harm
    few = sorted(number for number, at in found.replicas.items() if len(at) < topic.replication)
    where = f" (partitions {', '.join(map(str, few))})" if few else ""
    return Action(
        "reassign",
        topic,
        f"replication {found.replication} → {topic.replication}{where}: give them replicas with"
        " kafka-reassign-partitions; min.insync.replicas stays below the number of replicas until then",
        found.partitions,
    )


def _partition_step(topic: DesiredTopic, found: ExistingTopic) -> Action | None:
    if found.partitions == topic.partitions:
        return None
    change = f"{found.partitions} partitions → {topic.partitions}"
    if found.partitions > topic.partitions:
        return Action(
            "refuse",
            topic,
            f"{change}: Kafka cannot take partitions away; set kafka.partitions to {found.partitions} or more",
            found.partitions,
        )
    if topic.widening is Widening.NEVER:
        return Action(
            "refuse",
            topic,
            f"{change}: a document's versions are offsets in its partition of the log, and another count would move"
            f" it to another one; set kafka.partitions to {found.partitions}. Recreating this topic with a raised"
            " partition epoch is not offered",
            found.partitions,
        )
    confirm = ""
    if topic.widening is Widening.ORDER:
        confirm = (
            "keys move to other partitions, so a change that still waits could be overtaken by a newer one: stop its"
            f" writers and let {topic.made_for} read everything first"
        )
    return Action("widen", topic, change, topic.partitions, confirm=confirm)


def _config_step(topic: DesiredTopic, found: ExistingTopic) -> Action | None:
    changes: dict[str, str] = {}
    doubts: list[str] = []
    for key, wished in topic.config.items():
        has = found.config.get(key, "")
        wanted = _in_sync_minimum(found, has) if key == _IN_SYNC else wished
        if has == wanted:
            continue
        if key == _SIZE and has and int(has) > int(wanted):
            continue  # never lower a limit: records of that size may exist
        if key == _RETENTION and has and _shorter(int(wanted), int(has)):
            doubts.append(f"records are kept {_span(int(wanted))} instead of {_span(int(has))}")
        if key == _CLEANUP:
            doubts.append(f"records are cleaned up by {wanted} instead of {has or 'nothing'}")
        changes[key] = wanted
    if not changes:
        return None
    reason = ", ".join(f"{key} {found.config.get(key, 'unset')} → {value}" for key, value in sorted(changes.items()))
    return Action("alter", topic, reason, found.partitions, changes, "; ".join(doubts))


def _in_sync_minimum(found: ExistingTopic, has: str) -> str:
    """Return the minimum for the replicas that a topic actually has: with a higher one, every write would fail.

    The minimum is raised only if enough replicas are in sync, and never lowered if the topic can meet it.
    """
    own, now = int(_minimum_for(found.replication)), int(has or 1)
    if own < now <= found.replication:
        return has
    in_sync = found.replication if found.in_sync is None else found.in_sync
    return str(own) if own <= max(in_sync, now) else has or "1"


def _minimum_for(replication: int) -> str:
    # With three or more replicas one may be missing: acks=all then still means two copies.
    return "2" if replication >= 3 else "1"


def _shorter(wanted: int, has: int) -> bool:
    return wanted != FOR_EVER and (has == FOR_EVER or wanted < has)


def _span(milliseconds: int) -> str:
    return "for ever" if milliseconds == FOR_EVER else f"{milliseconds / DAY_MS:g} d"


def _catalogued(topic: Topic, kafka: Kafka) -> DesiredTopic:
    widening = Widening.FREE
    if topic.partitions == "log":
        widening = Widening.NEVER
    elif topic.name == SUBMITTED:
        widening = Widening.ORDER
    return DesiredTopic(
        topic.name,
        1 if topic.partitions == "one" else kafka.partitions,
        kafka.replication,
        _config(kafka, topic.retention_ms, record_limit(topic.name, kafka), topic.cleanup),
        widening,
        " and ".join(readers_of(topic)),
    )


def _dead_letters(source: str, kafka: Kafka, readers: Sequence[str]) -> DesiredTopic:
    name = dead_letter_topic(source)
    return DesiredTopic(
        name,
        1,
        kafka.replication,
        _config(kafka, DEAD_LETTER_RETENTION_MS, record_limit(name, kafka)),
        Widening.FREE,
        f"what {' and '.join(readers)} could not take",
    )


def _compacted(name: str, kafka: Kafka, made_for: str) -> DesiredTopic:
    config = _config(kafka, FOR_EVER, SMALL_RECORD_BYTES, "compact")
    return DesiredTopic(name, 1, kafka.replication, config, Widening.ORDER, made_for)


def _captured(name: str, kafka: Kafka, table: str) -> DesiredTopic:
    return DesiredTopic(
        name,
        kafka.partitions,
        kafka.replication,
        _config(kafka, CAPTURE_RETENTION_MS, kafka.max_record_bytes),
        Widening.ORDER,
        f"capture of {table}",
    )


def _debezium(name: str, kafka: Kafka, kept_ms: int) -> DesiredTopic:
    config = _config(kafka, kept_ms, SMALL_RECORD_BYTES)
    return DesiredTopic(name, 1, kafka.replication, config, Widening.NEVER, "Debezium itself")


def _config(kafka: Kafka, retention_ms: int, size: int, cleanup: str = "delete") -> dict[str, str]:
    return {
        _RETENTION: str(retention_ms),
        _CLEANUP: cleanup,
        _SIZE: str(size),
        _IN_SYNC: _minimum_for(kafka.replication),
    }
