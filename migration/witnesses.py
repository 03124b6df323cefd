"""The points by which a Qdrant collection is identified: the last that this process wrote, and a sample of all."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from connectors.ports import Ledger
from connectors.vector_ports import VectorReader
from domain.ledger import VectorMark
from domain.witnesses import RECENT, SAMPLED, Witness
from schemas.keys import packed_id, point_id

_NAME_LENGTH = 110


@dataclass(slots=True)
class Written:
    """The last points written, by collection."""

    last: dict[str, deque[Witness]] = field(default_factory=dict)

    def note(self, name: str, marks: Sequence[VectorMark]) -> None:
        """Note what the vector writer wrote: the first point of each document that has one."""
        last = self.last.setdefault(name, deque(maxlen=RECENT))
        for mark in marks[-RECENT:]:
            if mark.chunk_count:
                last.append(Witness(packed_id(point_id(name, mark.id, 0)), mark.version))


async def sample(vectors: VectorReader, name: str) -> tuple[Witness, ...]:
    """Return some points from anywhere in a collection, with their versions. Raises as the port does."""
    ids = b""
    for _ in range(SAMPLED):
        ids += (await vectors.scan_ids(name, str(uuid4()), 1)).ids
    if not ids:
        ids = (await vectors.scan_ids(name, None, SAMPLED)).ids
    return tuple(Witness(point, version) for point, version in (await versions(vectors, name, ids)).items())


async def versions(vectors: VectorReader, name: str, ids: bytes) -> dict[bytes, int]:
    """Return the versions of the points that exist, by packed id. Other points are left out."""
    found = await vectors.points(name, ids)
    return {
        packed_id(point_id(name, document, one.chunk)): one.version
        for document, points in found.items()
        for one in points
        if document
    }


async def recorded_witnesses(ledger: Ledger, name: str) -> tuple[Witness, ...]:
    """Return the recorded witnesses of a collection."""
    return from_text(await ledger.identity(f"witnesses.{name}"[:_NAME_LENGTH]))


async def record_witnesses(ledger: Ledger, name: str, witnesses: Sequence[Witness]) -> None:
    """Record the points by which a collection is identified."""
    await ledger.set_identity(f"witnesses.{name}"[:_NAME_LENGTH], as_text(witnesses))


async def forgotten_witnesses(ledger: Ledger, name: str) -> tuple[Witness, ...]:
    """Return the witnesses whose points a repair removed."""
    return from_text(await ledger.identity(f"forgotten.{name}"[:_NAME_LENGTH]))


async def forget_witnesses(ledger: Ledger, name: str, points: Collection[bytes]) -> None:
    """Record which witnesses a repair is about to remove, so that the collection is not taken for another one.

    They are kept apart from the witnesses, which the worker records again and again.
    """
    removed = [one for one in await recorded_witnesses(ledger, name) if one.point in points]
    if removed:
        earlier = [one for one in await forgotten_witnesses(ledger, name) if one not in removed]
        kept = [*earlier, *removed][-(RECENT + SAMPLED) :]
        await ledger.set_identity(f"forgotten.{name}"[:_NAME_LENGTH], as_text(kept))


def as_text(witnesses: Sequence[Witness]) -> str:
    """Encode witnesses for the record."""
    return json.dumps([[b64encode(one.point).decode(), one.version] for one in witnesses], separators=(",", ":"))


def from_text(text: str | None) -> tuple[Witness, ...]:
    """Decode recorded witnesses."""
    return tuple(Witness(b64decode(point), version) for point, version in json.loads(text or "[]"))
