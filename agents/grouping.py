"""Decodes a batch and parts it by collection, for the writers and the embedder. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from agents.batch import Batch, CollectionPorts, Collections, Failure, Failures, Message, collection_of
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
