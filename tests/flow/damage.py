"""Damages points in the engine's own files while its host is down, as no writer would.

For each damaged document, it records the kind of difference that the verifier must report. The checksums of the points
are alternately left as they were and made to fit the damage.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from connectors.qdrant.engine.files import engine_folder
from connectors.qdrant.engine.shard import Shard
from connectors.qdrant.points import VECTOR
from domain.points import CHECKSUM, VECTOR_CHECKSUM, payload_checksum, vector_checksums
from schemas.keys import point_id

Payload = dict[str, Any]
KINDS = (
    "missing",
    "stale",
    "ghost",
    "wrong vector",
    "wrong payload",
    "wrong type",
    "wrong version",
    "duplicate chunk",
)
_STRANGE: Payload = {
    "tenant": ["default"],
    "chunk": "0",
    "version": "the last",
    "content_hash": 5,
    "deleted": "no",
    "model": None,
    "text": 5,
    "metadata": ["a"],
}


@dataclass
class _Point:
    id: Any
    payload: Payload
    vector: list[float]


class Damage:
    """Damages the points of one collection. `expected` is the kind of difference of each document."""

    def __init__(self, home: Path, collection: str, seed: int) -> None:
        self._collection = collection
        self._shard = Shard.open(collection, engine_folder(home) / collection)
        self._engine = self._shard._engine
        self._random = random.Random(seed)
        self.expected: dict[str, str] = {}

    def close(self) -> None:
        self._shard.close()

    def spread(self, ids: Sequence[str]) -> None:
        """Damage each document once, with the kinds in turn. A `ghost` is a new point of a document that has no row."""
        for number, document_id in enumerate(ids):
            kind, fitting = KINDS[number % len(KINDS)], number // len(KINDS) % 2 == 0
            self._do(kind, document_id, fitting)

    def _do(self, kind: str, document_id: str, fitting: bool) -> None:
        point = self._read(document_id)
        if kind == "missing":
            self._engine.update(edge.UpdateOperation.delete_points([point.id]))
        elif kind == "ghost":
            document_id = f"ghost of {document_id}"
            point.payload |= {"document_id": document_id}
            self._write(_Point(point_id(self._collection, document_id, 0), point.payload, point.vector), fitting=True)
        elif kind == "duplicate chunk":
            self._write(_Point(str(uuid.UUID(int=self._random.getrandbits(128))), point.payload, point.vector), True)
        else:
            _CHANGES[kind](point, self._random)
            self._write(point, fitting)
        self.expected[document_id] = kind if kind in {"missing", "ghost"} else "stale"

    def _read(self, document_id: str) -> _Point:
        name = point_id(self._collection, document_id, 0)
        (record,) = self._engine.retrieve([name], True, True)
        vectors: Any = record.vector
        return _Point(record.id, dict(record.payload or {}), list(vectors[VECTOR]))

    def _write(self, point: _Point, fitting: bool) -> None:
        if fitting:
            raw = np.asarray(point.vector, "<f4").tobytes()
            point.payload[VECTOR_CHECKSUM] = vector_checksums([raw])[0]
            point.payload[CHECKSUM] = payload_checksum(point.payload)
        upsert = edge.UpdateOperation.upsert_points([edge.Point(point.id, {VECTOR: point.vector}, point.payload)])
        self._engine.update(upsert)


def _stale(point: _Point, chosen: random.Random) -> None:
    point.payload["content_hash"] = f"{chosen.getrandbits(128):032x}"


def _vector(point: _Point, chosen: random.Random) -> None:
    at = chosen.randrange(len(point.vector))
    point.vector[at] += chosen.choice([-0.01, 0.01, 0.5, -point.vector[at]])


def _payload(point: _Point, chosen: random.Random) -> None:
    if chosen.random() < 0.5:
        point.payload["metadata"] = {**point.payload["metadata"], "line": -1}
    else:
        point.payload["tenant"] = "another"


def _type(point: _Point, chosen: random.Random) -> None:
    name = chosen.choice([*_STRANGE])
    point.payload[name] = _STRANGE[name]


def _version(point: _Point, chosen: random.Random) -> None:
    point.payload["version"] += chosen.choice([-1, 1, 1000])


_CHANGES: dict[str, Callable[[_Point, random.Random], None]] = {
    "stale": _stale,
    "wrong vector": _vector,
    "wrong payload": _payload,
    "wrong type": _type,
    "wrong version": _version,
}
