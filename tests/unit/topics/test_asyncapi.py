"""The AsyncAPI document has the structure that version 3.0.0 requires, and agrees with the catalogue."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from schemas.cloudevents import encode
from schemas.documents import DocumentSubmitted
from schemas.settings import Kafka, Settings
from topics.asyncapi import asyncapi
from topics.catalogue import CATALOGUE
from topics.roles import readers_of, writers_of

DOCUMENT = asyncapi(Settings.model_validate({"kafka": Kafka(partitions=6)}), "1.2.3")


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def resolved(reference: str) -> Any:
    assert reference.startswith("#/")
    node: Any = DOCUMENT
    for part in reference[2:].split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def test_every_reference_leads_somewhere() -> None:
    references = [node["$ref"] for node in walk(DOCUMENT) if isinstance(node.get("$ref"), str)]
    assert references
    for reference in references:
        assert resolved(reference) is not None


def test_the_root_has_what_version_3_requires_and_nothing_else() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(DOCUMENT["info"])
    allowed = {"asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations", "components"}
    assert set(DOCUMENT) <= allowed


@pytest.mark.parametrize("name", DOCUMENT["channels"])
def test_a_channel_has_an_address_messages_by_reference_and_a_kafka_binding(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_\-]+", name)
    channel = DOCUMENT["channels"][name]
    assert set(channel) <= {"address", "title", "summary", "description", "messages", "bindings"}
    assert channel["messages"]
    for message in channel["messages"].values():
        assert message["$ref"].startswith("#/components/messages/")
    kafka = channel["bindings"]["kafka"]
    assert kafka["topic"] == channel["address"]
    assert kafka["partitions"] in {1, 6}
    assert set(kafka["topicConfiguration"]["cleanup.policy"]) <= {"compact", "delete"}
    assert all(isinstance(kafka["topicConfiguration"][key], int) for key in ("retention.ms", "max.message.bytes"))


@pytest.mark.parametrize("name", DOCUMENT["operations"])
def test_an_operation_names_its_channel_and_messages_of_that_channel(name: str) -> None:
    operation = DOCUMENT["operations"][name]
    assert set(operation) <= {"action", "channel", "title", "summary", "description", "messages", "bindings"}
    assert operation["action"] in {"send", "receive"}
    channel = operation["channel"]["$ref"]
    assert channel.startswith("#/channels/")
    assert operation["messages"]
    # An operation must refer to the messages of its channel, not to those of the components.
    assert all(message["$ref"].startswith(channel + "/messages/") for message in operation["messages"])


@pytest.mark.parametrize("name", DOCUMENT["components"]["messages"])
def test_a_message_has_object_headers_and_a_valid_payload_schema(name: str) -> None:
    message = DOCUMENT["components"]["messages"][name]
    allowed = {"name", "title", "summary", "contentType", "headers", "payload", "bindings"}
    assert set(message) <= allowed
    assert message.get("headers", {"type": "object"})["type"] == "object"
    for schema in (message.get("headers", {}), message["payload"]):
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", DOCUMENT["components"]["schemas"])
def test_component_keys_and_schemas_are_valid(name: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9.\-_]+", name)
    Draft202012Validator.check_schema(DOCUMENT["components"]["schemas"][name])


def test_every_topic_is_a_channel_and_every_role_an_operation() -> None:
    addresses = {channel["address"] for channel in DOCUMENT["channels"].values()}
    assert {topic.name for topic in CATALOGUE} <= addresses
    assert len(DOCUMENT["operations"]) == sum(len(writers_of(topic)) + len(readers_of(topic)) for topic in CATALOGUE)


def test_an_encoded_event_has_the_headers_and_the_data_that_the_document_describes() -> None:
    event = DocumentSubmitted(collection="docs", id="1", text="t")
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    sent = encode(event, topic="t", key="docs/1", event_id="1", source="test", time_ms=0, traceparent=trace)
    message = DOCUMENT["components"]["messages"]["DocumentSubmitted"]
    headers = {name: value.decode() for name, value in sent.headers}
    Draft202012Validator(message["headers"]).validate(headers)
    assert set(headers) <= set(message["headers"]["properties"])
    data = event.model_dump(mode="json")
    Draft202012Validator({**DOCUMENT, **message["payload"]}).validate(data)
    structured = DOCUMENT["components"]["messages"]["DocumentSubmittedStructured"]["payload"]
    envelope = {"specversion": "1.0", "id": "1", "source": "s", "type": event.ce_type, "data": data}
    Draft202012Validator({**DOCUMENT, **structured}).validate(envelope)
    assert not Draft202012Validator({**DOCUMENT, **structured}).is_valid(envelope | {"data": {"id": "1"}})
