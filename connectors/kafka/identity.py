"""The identity of a topic besides its name: its cluster, and the id that the brokers gave it when it was created.

aiokafka asks for metadata without topic ids (KIP-516, brokers from 2.8 on), so the request is built here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from uuid import UUID

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import NoError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

_UUID_BYTES = 16


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """The cluster and the id of a topic; empty if the brokers are too old to report them."""

    cluster: str
    topic: str


class _Uuid(AbstractType[UUID]):  # type: ignore[misc]  # aiokafka ships no types
    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(_UUID_BYTES))


class _MetadataResponse(Response):  # type: ignore[misc]  # as above
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("authorized", Int32),
        ("tags", TaggedFields),
    )


class _MetadataRequest10(RequestStruct):  # type: ignore[misc]  # as above
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataRequest10]):  # type: ignore[misc]  # as above
    API_KEY = 3

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics: list[tuple[UUID, str, dict[int, bytes]]] = [(UUID(int=0), name, {}) for name in topics]

    def build(self, request_struct_class: type[_MetadataRequest10]) -> _MetadataRequest10:
        """Return the request; it does not create a missing topic."""
        return request_struct_class(self._topics, False, False, False, {})


async def topic_identities(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, TopicIdentity]:
    """Return the identities of the topics that exist. Raises KafkaError."""
    wanted = sorted(set(names))
    try:
        answer = await admin._send_request(_MetadataRequest(wanted))
    except NotImplementedError:  # brokers before 2.8
        cluster = await admin._get_cluster_metadata()
        known = {topic["topic"] for topic in cluster.to_object()["topics"]}
        return {name: TopicIdentity(cluster.cluster_id or "", "") for name in wanted if name in known}
    found: dict[str, TopicIdentity] = {}
    for code, name, topic_id, *_ in answer.topics:
        error = for_code(code)
        if error is NoError:
            found[name] = TopicIdentity(answer.cluster_id or "", str(topic_id) if topic_id.int else "")
        elif error is not UnknownTopicOrPartitionError:  # it may exist, but a right is missing or it has no leader
            raise error(f"the brokers do not describe {name}")
    return found
