"""The journal of a collection of the embedded engine: the writes since the last flush, repeated when opened.

The engine keeps what a flush brought to disk. After a kill it did not always have the later writes, although it had
acknowledged them and even returned them to readers, with its own log and without (seen with qdrant-edge-py 0.9). So
each write is appended here first. It is guarded by versions, so repeating a write that was kept changes nothing. The
end of the process loses nothing that was appended. A power cut may lose what was appended since the last flush.
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
    """Points to insert unless a point of the same id exists."""

    points: PointBatch


Entry = Written | Inserted
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
_HEAD_BYTES = 8


class Journal:
    """An append-only file of entries: length and CRC-32 of each (4 bytes each, little-endian), then its MessagePack."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, entry: Entry) -> None:
        """Append an entry, which survives the end of this process. Raises OSError for a full disk and adds nothing."""
        body = _encode(entry)
        data = len(body).to_bytes(4, "little") + crc32(body).to_bytes(4, "little") + body
        before = os.fstat(self._file).st_size
        if os.write(self._file, data) < len(data):
            os.ftruncate(self._file, before)
            raise OSError(f"{self._path}: no space left for a journal entry")

    def entries(self) -> Iterator[Entry]:
        """Yield the entries since the last cut, up to an entry that a power cut left unfinished."""
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
        """Remove every entry: the engine has them on disk."""
        os.ftruncate(self._file, 0)

    def close(self) -> None:
        """Close the file and keep it."""
        os.close(self._file)
