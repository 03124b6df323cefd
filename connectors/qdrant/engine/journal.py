"""The journal of a collection of the embedded engine: what was written since its last flush, to be written once more.

The engine keeps what a flush brought to disk. What it acknowledged after that, and even told on, it did not always
have after a kill, with its own log and without (seen with qdrant-edge-py 0.9). So each write stands here first; it is
guarded by versions, so doing it again changes nothing where it was kept. The end of the process loses nothing that was
appended; a power cut may lose what was appended since the last flush.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import msgspec

from connectors.qdrant.points import PointBatch
from domain.points import DocumentPoints

log = logging.getLogger(__name__)


class Written(msgspec.Struct, frozen=True, tag="write"):
    """A document written under the guard of its version."""

    document: DocumentPoints


class Inserted(msgspec.Struct, frozen=True, tag="insert"):
    """Points inserted where there were none of their ids."""

    points: PointBatch


Entry = Written | Inserted
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
_HEAD_BYTES = 8


class Journal:
    """An append-only file of entries: their length and CRC-32 (4 bytes each, little-endian), then MessagePack."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, entry: Entry) -> None:
        """Add an entry, which outlives this process. Raises OSError for a full disk, with nothing added."""
        body = _encode(entry)
        data = len(body).to_bytes(4, "little") + crc32(body).to_bytes(4, "little") + body
        before = os.fstat(self._file).st_size
        if os.write(self._file, data) < len(data):
            os.ftruncate(self._file, before)
            raise OSError(f"{self._path}: no space left for a journal entry")

    def entries(self) -> Iterator[Entry]:
        """Return what was appended since the last cut, up to an entry that a power cut left unfinished."""
        data = self._path.read_bytes()
        at = 0
        while at + _HEAD_BYTES <= len(data):
            length, check = (int.from_bytes(data[at + n : at + n + 4], "little") for n in (0, 4))
            body = data[at + _HEAD_BYTES : at + _HEAD_BYTES + length]
            if len(body) < length or crc32(body) != check:
                log.warning("%s: unfinished after %d of %d bytes", self._path, at, len(data))
                return
            yield _decode(body)
            at += _HEAD_BYTES + length

    def cut(self) -> None:
        """Forget every entry: the engine has them on disk."""
        os.ftruncate(self._file, 0)

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._file)
