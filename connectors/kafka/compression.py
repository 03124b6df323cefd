"""Unpacks compressed record batches of any codec, with a bound on the unpacked size. No connection is opened here.

aiokafka unpacks whatever a batch holds into memory: 16 MiB of zstd may be gigabytes.
These functions replace its codecs.
"""

from __future__ import annotations

import zlib
from typing import Any

import cramjam
import numpy as np
from aiokafka.record import default_records, legacy_records
from aiokafka.record._crecords import default_records as fast_default_records
from aiokafka.record._crecords import legacy_records as fast_legacy_records

# The bound for one batch. Producers build batches of a few MiB at most; a larger one is a bomb or of no use to a topic.
MAX_UNPACKED_BYTES = 64 * 1024 * 1024
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16
# zlib's number for a gzip header.
_GZIP = 16 + zlib.MAX_WBITS
_FULL = "failed to write whole buffer"


class UnpackedTooLarge(Exception):
    """A compressed batch holds more than `MAX_UNPACKED_BYTES`."""

    def __init__(self) -> None:
        super().__init__(f"it unpacks to more than {MAX_UNPACKED_BYTES} bytes")


def gunzip(data: Any) -> bytes:
    """Unpack gzip, also with several members. Raises UnpackedTooLarge, zlib.error."""
    left, parts, room = bytes(data), [], MAX_UNPACKED_BYTES + 1
    while left:
        member = zlib.decompressobj(_GZIP)
        parts.append(member.decompress(left, room))
        room -= len(parts[-1])
        if room <= 0:
            raise UnpackedTooLarge
        if not member.eof:
            raise zlib.error("the stream is cut")
        left = member.unused_data
    return b"".join(parts)


def unzstd(data: Any) -> bytes:
    """Unpack zstd. Raises UnpackedTooLarge, cramjam.DecompressionError."""
    return _into(cramjam.zstd, data)


def unlz4(data: Any) -> bytes:
    """Unpack LZ4 frames. Raises UnpackedTooLarge, cramjam.DecompressionError."""
    return _into(cramjam.lz4, data)


def unsnappy(data: Any) -> bytes:
    """Unpack snappy, plain or in the Java library's blocks. Raises UnpackedTooLarge, cramjam.DecompressionError."""
    packed = bytes(data)
    if not packed.startswith(_XERIAL):
        return _unsnappy_block(packed, MAX_UNPACKED_BYTES)
    parts, room, at = [], MAX_UNPACKED_BYTES, _XERIAL_HEADER_BYTES
    while at < len(packed):
        size = int.from_bytes(packed[at : at + 4], "big", signed=True)
        if size < 0 or at + 4 + size > len(packed):
            raise cramjam.DecompressionError("a snappy block is cut")
        parts.append(_unsnappy_block(packed[at + 4 : at + 4 + size], room))
        room -= len(parts[-1])
        at += 4 + size
    return b"".join(parts)


def _unsnappy_block(packed: bytes, room: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(packed) > room:
        raise UnpackedTooLarge
    return bytes(cramjam.snappy.decompress_raw(packed))


def _into(codec: Any, data: Any) -> bytes:
    # Memory that is never written costs nothing: small batches do not pay for the whole buffer.
    room = np.empty(MAX_UNPACKED_BYTES, np.uint8)
    try:
        size = codec.decompress_into(bytes(data), room)
    except cramjam.DecompressionError as error:
        if _FULL in str(error):
            raise UnpackedTooLarge from error
        raise
    return room[:size].tobytes()


def bound_codecs() -> None:
    """Make aiokafka use these functions in this process; a second call changes nothing."""
    for module in (default_records, legacy_records, fast_default_records, fast_legacy_records):
        module.gzip_decode = gunzip
        module.lz4_decode = unlz4
        module.snappy_decode = unsnappy
        if hasattr(module, "zstd_decode"):
            module.zstd_decode = unzstd
