"""Every error of the client library maps to one of the ports. Keys get the same partitions as in Kafka's clients."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from aiokafka import errors as kafka

from connectors.errors import CrossfadeError, Misconfigured, PermanentError, Refused, StoreUnavailable, TransientError
from connectors.kafka.errors import mapped
from connectors.kafka.headers import partition_of

ALL: list[Any] = [
    error
    for _, error in inspect.getmembers(kafka, inspect.isclass)
    if issubclass(error, kafka.KafkaError) and error is not kafka.BrokerResponseError  # abstract: it has no number
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_every_error_of_the_client_is_mapped_and_named(error: Any) -> None:
    found = mapped(error(), "the-topic")
    assert isinstance(found, CrossfadeError)
    assert "the-topic" in str(found)


@pytest.mark.parametrize("error", [error for error in ALL if error.retriable], ids=lambda error: error.__name__)
def test_what_may_succeed_later_is_never_permanent(error: Any) -> None:
    if error in {kafka.UnknownTopicOrPartitionError}:  # its topic must be created first
        assert isinstance(mapped(error(), "t"), Misconfigured)
    else:
        assert isinstance(mapped(error(), "t"), TransientError)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (kafka.MessageSizeTooLargeError(), Refused),
        (kafka.TopicAuthorizationFailedError(), Misconfigured),
        (kafka.InvalidReplicationFactorError(), Misconfigured),
        (kafka.OutOfOrderSequenceNumber(), TransientError),
        (kafka.KafkaConnectionError(), StoreUnavailable),
        (kafka.KafkaTimeoutError(), StoreUnavailable),
        (ConnectionRefusedError(), StoreUnavailable),
        (TimeoutError(), StoreUnavailable),
    ],
)
def test_errors_keep_what_the_caller_must_do(error: Exception, expected: type[CrossfadeError]) -> None:
    assert type(mapped(error, "t")) is expected
    assert issubclass(expected, PermanentError) != issubclass(expected, TransientError)


@pytest.mark.parametrize(
    ("key", "murmur2"),
    # Computed by org.apache.kafka.common.utils.Utils.murmur2.
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"abc", 479470107),
    ],
)
def test_the_partition_of_a_key_is_that_of_kafkas_java_client(key: bytes, murmur2: int) -> None:
    for partitions in (1, 4, 7, 1024):
        assert partition_of(key, partitions) == (murmur2 & 0x7FFFFFFF) % partitions
