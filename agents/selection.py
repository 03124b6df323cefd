"""Splits a batch: by the collection that a record names, which is its lane; by collection and event; by document."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from agents.batch import Batch, Failure, Failures, Message
from migration.collection import CollectionPorts, Collections, collection_of
from schemas.cloudevents import InvalidEvent, decode, unwrap
from schemas.documents import DocumentEmbedded, DocumentResolved
from schemas.keys import parse_key
from schemas.records import Received

E = TypeVar("E", DocumentResolved, DocumentEmbedded)


class _Named(msgspec.Struct):
    collection: str


_NAMED = msgspec.json.Decoder(_Named)


def _anything_goes(_: CollectionPorts, __: E) -> None:
    return None


def by_collection(
    batch: Batch,
    collections: Collections,
    model: type[E],
    check: Callable[[CollectionPorts, E], None] = _anything_goes,
) -> tuple[dict[str, list[tuple[Message, E]]], Failures]:
    """Decode a batch and split it by collection, in order; what is no such event or fails `check` is a failure.

    `check` raises InvalidEvent.
    """
    work: dict[str, list[tuple[Message, E]]] = {}
    failures: Failures = []
    for message in batch:
        try:
            event, _ = decode(message.record, model)
            check(collection_of(collections, event.collection), event)
        except InvalidEvent as error:
            failures.append(Failure(message, error))
            continue
        work.setdefault(event.collection, []).append((message, event))
    return work, failures


def newest_of(items: Iterable[tuple[Message, E]]) -> dict[str, tuple[Message, E]]:
    """Return, by document id, the item of the highest version; of several deliveries, the last one.

    The highest need not be the last of the batch: a replaced resolver may have published an older version after it.
    """
    newest: dict[str, tuple[Message, E]] = {}
    for message, event in items:
        if event.id not in newest or event.version >= newest[event.id][1].version:
            newest[event.id] = (message, event)
    return newest


def named_by_key(record: Received) -> str:
    """Return the collection of a record in a working topic, the empty string if its key names none."""
    try:
        return parse_key(record.key or b"")[0]
    except ValueError:
        return ""


def submitted_to(record: Received) -> str:
    """Return the collection of a producer's record, whose key may be anything; the empty string if it names none.

    This runs outside of a runner, so an error would end the role. A record that cannot be read, for whatever reason,
    therefore belongs to no collection. The runner of such records makes a dead letter of it.
    """
    try:
        _, data = unwrap(record)
        return named_by_key(record) if data is None else _NAMED.decode(data).collection
    except Exception:
        return ""
