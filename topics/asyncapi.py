"""The AsyncAPI 3.0 document: topics as channels, roles as operations, events as messages. Generated, never edited.

Sources: AsyncAPI 3.0.0 specification, its Kafka bindings 0.5.0, CloudEvents 1.0.2 with its Kafka protocol binding.
"""

from __future__ import annotations

from schemas.cloudevents import STRUCTURED
from schemas.dead_letters import ATTEMPT, ERROR_CLASS, ERROR_HEADERS, ERROR_MESSAGE, OFFSET, PARTITION, STAGE, TOPIC
from schemas.documents import Event
from schemas.export import JsonObject, shared_schemas
from schemas.settings import Settings
from topics.catalogue import CATALOGUE, SUBMITTED, Topic, dead_letter_topic
from topics.provisioning import DesiredTopic, desired_topics
from topics.roles import readers_of, writers_of

VERSION = "3.0.0"
KAFKA_BINDING = "0.5.0"
# Roles outside crossfade, which may use either content mode.
OUTSIDE = frozenset({"producers", "anyone"})
DELETION = "DocumentDeletion"
DEAD_LETTER = "DeadLetter"
_SCHEMAS = "#/components/schemas/"


def asyncapi(settings: Settings, version: str) -> JsonObject:
    """Return the document for these settings (partitions, sizes); `version` is the application's version."""
    desired = {topic.name: topic for topic in desired_topics(settings)}
    channels: JsonObject = {}
    operations: JsonObject = {}
    for topic in CATALOGUE:
        names = _message_names(topic)
        channels[channel_id(topic.name)] = _channel(desired[topic.name], names)
        operations |= _operations(topic, names)
        if topic.dead_letters:
            letters = dead_letter_topic(topic.name)
            channels[channel_id(letters)] = _channel(desired[letters], [DEAD_LETTER])
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "crossfade",
            "version": version,
            "description": "Moves a live document store to Qdrant over Kafka and serves queries from both. Events are"
            " CloudEvents 1.0 in Kafka's binary content mode; structured mode is read where others write.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def channel_id(topic: str) -> str:
    """Return the id of a topic's channel: its name without the parts that all share, as in `documents-submitted`."""
    name, dash, rest = topic.removeprefix("crossfade.").partition("-")
    return name.removesuffix(".v1").replace(".", "-") + dash + rest


def _message_names(topic: Topic) -> list[str]:
    names = [event.__name__ for event in topic.events]
    if OUTSIDE & set(writers_of(topic)):
        names += [_structured(name) for name in names]
    if topic.name == SUBMITTED:
        names.append(DELETION)
    return names


def _structured(name: str) -> str:
    return f"{name}Structured"


def _channel(topic: DesiredTopic, names: list[str]) -> JsonObject:
    config = topic.config
    return {
        "address": topic.name,
        "description": f"For {topic.made_for}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "replicas": topic.replication,
                "topicConfiguration": {
                    "cleanup.policy": config["cleanup.policy"].split(","),
                    "retention.ms": int(config["retention.ms"]),
                    "max.message.bytes": int(config["max.message.bytes"]),
                },
                "bindingVersion": KAFKA_BINDING,
            }
        },
    }


def _operations(topic: Topic, names: list[str]) -> JsonObject:
    channel = channel_id(topic.name)
    found: JsonObject = {}
    for action, roles in (("send", writers_of(topic)), ("receive", readers_of(topic))):
        for role in roles:
            found[f"{role}-{action}-{channel}"] = {
                "action": action,
                "title": f"{role}: {action} {', '.join(event.__name__ for event in topic.events)}",
                "channel": {"$ref": f"#/channels/{channel}"},
                "messages": [
                    {"$ref": f"#/channels/{channel}/messages/{name}"}
                    for name in names
                    if role in OUTSIDE or action == "receive" or not name.endswith("Structured")
                ],
            }
    return found


def _messages() -> JsonObject:
    found: JsonObject = {DEAD_LETTER: _dead_letter_message(), DELETION: _deletion_message()}
    for topic in CATALOGUE:
        for event in topic.events:
            found[event.__name__] = _binary_message(event)
            if OUTSIDE & set(writers_of(topic)):
                found[_structured(event.__name__)] = _structured_message(event)
    return dict(sorted(found.items()))


def _binary_message(event: type[Event]) -> JsonObject:
    return {
        "name": event.ce_type,
        "title": event.__name__,
        "summary": (event.__doc__ or "").strip().partition("\n")[0],
        "contentType": "application/json",
        "headers": _headers(event.ce_type),
        "payload": {"$ref": _SCHEMAS + event.__name__},
        "bindings": _key_binding(),
    }


def _structured_message(event: type[Event]) -> JsonObject:
    return {
        "name": f"{event.ce_type} (structured)",
        "title": f"{event.__name__}, structured mode",
        "summary": "The same event with its attributes in the value.",
        "contentType": STRUCTURED,
        "headers": {
            "type": "object",
            "required": ["content-type"],
            "properties": {"content-type": {"type": "string", "pattern": "^application/cloudevents\\+json"}},
        },
        "payload": {
            "type": "object",
            "required": ["specversion", "id", "source", "type", "data"],
            "properties": {
                "specversion": {"const": "1.0"},
                "id": {"type": "string", "minLength": 1},
                "source": {"type": "string", "minLength": 1},
                "type": {"const": event.ce_type},
                "subject": {"type": "string"},
                "time": {"type": "string", "format": "date-time"},
                "datacontenttype": {"const": "application/json"},
                "data": {"$ref": _SCHEMAS + event.__name__},
            },
        },
        "bindings": _key_binding(),
    }


def _deletion_message() -> JsonObject:
    return {
        "name": "deletion",
        "title": DELETION,
        "summary": "A record without a value (a tombstone) deletes the document that its key names.",
        "payload": {"type": "null"},
        "bindings": _key_binding(),
    }


def _dead_letter_message() -> JsonObject:
    text = {"type": "string"}
    number = {"type": "string", "pattern": "^[0-9]+$"}
    properties = {
        TOPIC: text,
        PARTITION: number,
        OFFSET: number,
        STAGE: text,
        ERROR_CLASS: text,
        ERROR_MESSAGE: text,
        ATTEMPT: number,
    }
    return {
        "name": "dead letter",
        "title": DEAD_LETTER,
        "summary": "A record as it was: its key, its value, its headers, and those that say where it failed and why.",
        "headers": {"type": "object", "required": sorted(ERROR_HEADERS), "properties": properties},
        "payload": {},
    }


def _headers(ce_type: str) -> JsonObject:
    return {
        "type": "object",
        "required": ["ce_specversion", "ce_id", "ce_source", "ce_type"],
        "properties": {
            "ce_specversion": {"const": "1.0"},
            "ce_id": {"type": "string", "minLength": 1},
            "ce_source": {"type": "string", "minLength": 1},
            "ce_type": {"const": ce_type},
            "ce_subject": {"type": "string", "description": "The key of the record."},
            "ce_time": {"type": "string", "format": "date-time"},
            "content-type": {"const": "application/json"},
            "traceparent": {"type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
        },
    }


def _key_binding() -> JsonObject:
    key = {"type": "string", "description": "What belongs together: `collection/document_id`, or the id of a question."}
    return {"kafka": {"key": key, "bindingVersion": KAFKA_BINDING}}


def _schemas() -> JsonObject:
    return shared_schemas(_SCHEMAS + "{model}")
