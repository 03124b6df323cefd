"""Messages on the engine host's socket: typed requests and answers, and their frames. No sockets are opened here.

A frame is its length (4 bytes, little-endian) and one MessagePack value: a `Call` to the host, a `Reply` back. Many
calls may be in flight on one connection. A reply has the number of its call.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from connectors import errors
from connectors.errors import CrossfadeError, Refused, TransientError
from connectors.ports import SearchRequest
from connectors.qdrant.points import PointBatch
from connectors.vector_ports import IN_MEMORY, IdPage, Storage
from domain.points import DocumentPoints, StoredChunk
from schemas.values import Kind

MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
_LENGTH_BYTES: Final = 4


class Prepare(msgspec.Struct, frozen=True, tag="prepare"):
    """Call of `VectorStore.prepare`."""

    collection: str
    dimension: int
    metadata: dict[str, Kind] = {}
    storage: Storage = IN_MEMORY


class Stored(msgspec.Struct, frozen=True, tag="stored"):
    """Call of `VectorStore.stored`."""

    collection: str
    ids: list[str]
    content: bool


class Write(msgspec.Struct, frozen=True, tag="write"):
    """Call of `VectorStore.write`."""

    collection: str
    documents: list[DocumentPoints]


class Insert(msgspec.Struct, frozen=True, tag="insert"):
    """Call of `EmbeddedVectorStore.insert_points`."""

    collection: str
    points: PointBatch


class Forget(msgspec.Struct, frozen=True, tag="forget"):
    """Call of `VectorStore.forget`."""

    collection: str
    document_id: str
    ids: bytes
    above: int


class Search(msgspec.Struct, frozen=True, tag="search"):
    """Call of `VectorStore.search`."""

    collection: str
    request: SearchRequest


class ScanIds(msgspec.Struct, frozen=True, tag="scan ids"):
    """Call of `VectorStore.scan_ids`."""

    collection: str
    after: str | None
    limit: int


class Points(msgspec.Struct, frozen=True, tag="points"):
    """Call of `VectorStore.points`."""

    collection: str
    ids: bytes


class Count(msgspec.Struct, frozen=True, tag="count"):
    """Call of `VectorStore.count`."""

    collection: str


class EndBulk(msgspec.Struct, frozen=True, tag="end bulk"):
    """Call of `VectorStore.resume_indexing`."""

    collection: str


class Neighbours(msgspec.Struct, frozen=True, tag="neighbours"):
    """Call of `VectorStore.neighbours`."""

    collection: str
    vector: bytes
    limit: int
    exact: bool


class Optimise(msgspec.Struct, frozen=True, tag="optimise"):
    """Call of `EmbeddedVectorStore.optimise`."""

    collection: str


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Call that checks whether the host answers."""


Read = Search | Stored | ScanIds | Points | Count | Neighbours
Request = Read | Prepare | Write | Insert | Forget | EndBulk | Optimise | Ping

ANSWERS: Final[dict[type[Any], Any]] = {
    Prepare: None,
    Stored: dict[str, list[StoredChunk]],
    Write: None,
    Insert: None,
    Forget: None,
    Search: list[dict[str, Any]],  # fields of `Hit`
    ScanIds: IdPage,
    Points: dict[str, list[StoredChunk]],
    Count: int,
    EndBulk: None,
    Neighbours: list[str],
    Optimise: bool,
    Ping: int,  # the host's process id
}


class Call(msgspec.Struct, frozen=True, array_like=True):
    """A request and its number."""

    number: int
    request: Request


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """An answer, or the name of an error's class in `connectors.errors` and its message."""

    number: int
    answer: msgspec.Raw
    error: str | None = None
    message: str = ""


encode = msgspec.msgpack.Encoder().encode
decode_call = msgspec.msgpack.Decoder(Call).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode
NOTHING: Final = msgspec.Raw(encode(None))

_ERRORS: Final = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, CrossfadeError)
}


def frame(value: Call | Reply) -> bytes:
    """Return the bytes of a frame. Raises Refused if it is larger than 64 MiB or cannot be encoded."""
    try:
        body = encode(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise Refused(f"it cannot be sent to Qdrant's engine: {error}") from error
    if len(body) > MAX_FRAME_BYTES:
        raise Refused(f"{len(body)} bytes are more than the engine's host takes at once ({MAX_FRAME_BYTES})")
    return len(body).to_bytes(_LENGTH_BYTES, "little") + body


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Return the next frame's body. Raises EOFError at the end, OSError for a broken connection or a wrong length."""
    length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "little")
    if length > MAX_FRAME_BYTES:
        raise OSError(f"a frame of {length} bytes is announced, {MAX_FRAME_BYTES} are allowed")
    return await reader.readexactly(length)


def failure(number: int, error: BaseException) -> Reply:
    """Return the reply for an error. An error outside the tree becomes a TransientError that names it."""
    if isinstance(error, CrossfadeError) and type(error).__name__ in _ERRORS:
        return Reply(number, NOTHING, type(error).__name__, str(error))
    return Reply(number, NOTHING, TransientError.__name__, f"the engine's host failed: {type(error).__name__}: {error}")


def error_of(reply: Reply) -> CrossfadeError:
    """Return the error that a reply carries."""
    return _ERRORS.get(reply.error or "", TransientError)(reply.message)
