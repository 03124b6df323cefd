"""Parts a batch by collection and finds the newest version of each document, for the writers and the embedder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from agents.batch import Batch, Failure, Failures, Message
from migration.collection import CollectionPorts, Collections, collection_of
from schemas.cloudevents import InvalidEvent, decode
from schemas.documents import DocumentEmbedded, DocumentResolved

E = TypeVar("E", DocumentResolved, DocumentEmbedded)


def _anything_goes(_: CollectionPorts, __: E) -> None:
    return None


def by_collection(
    batch: Batch,
    collections: Collections,
    model: type[E],
    check: Callable[[CollectionPorts, E], None] = _anything_goes,
) -> tuple[dict[str, list[tuple[Message, E]]], Failures]:
    """Decode a batch and part it by collection, in order; what is no such event, or fails the check, is a failure.

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
    """Return by document id the item of the highest version, the last one where it was delivered more than once.

    The highest need not be the last of the batch: a replaced resolver may have published an older version behind it.
    """
    newest: dict[str, tuple[Message, E]] = {}
    for message, event in items:
        if event.id not in newest or event.version >= newest[event.id][1].version:
            newest[event.id] = (message, event)
    return newest
