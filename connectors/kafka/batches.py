"""The record batches of a fetch as bytes, and the records of a batch that aiokafka cannot read. Pure, no broker.

Source: Kafka's message format, version 2 (https://kafka.apache.org/documentation/#recordbatch). Brokers from 4.0 on
keep versions 0 and 1 but no longer accept them. Both begin with the same bytes; aiokafka alone reads them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch

from connectors.kafka.compression import gunzip, unlz4, unsnappy, unzstd

_OFFSET_AND_LENGTH = struct.Struct(">qi")
_MAGIC_AT = 16
_HEADER = struct.Struct(">qiibIhiqqqhii")
_SMALLEST = 26
_CODECS: dict[int, Callable[[Any], bytes]] = {0: bytes, 1: gunzip, 2: unsnappy, 3: unlz4, 4: unzstd}
_CODEC_MASK, _APPEND_TIME = 0x07, 0x08


class Fetched:
    """The batches of one partition in a fetch: like aiokafka's `MemoryRecords`, but with the bytes of each batch."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data or b"")
        self._at = 0

    def size_in_bytes(self) -> int:
        """Return the size of the partition's data in bytes."""
        return len(self._data)

    def has_next(self) -> bool:
        """Return whether a whole batch follows: a broker cuts off the last one at the size limit."""
        return self._end() is not None

    def next_raw(self) -> memoryview:
        """Return the bytes of the next batch."""
        end = self._end()
        if end is None:
            raise CorruptRecordException("no whole batch is left")
        raw, self._at = self._data[self._at : end], end
        return raw

    def _end(self) -> int | None:
        if len(self._data) - self._at < _OFFSET_AND_LENGTH.size:
            return None
        _, length = _OFFSET_AND_LENGTH.unpack_from(self._data, self._at)
        end = self._at + _OFFSET_AND_LENGTH.size + max(0, length)
        return int(end) if end <= len(self._data) else None


@dataclass(frozen=True, slots=True)
class Extent:
    """The summary in the header of a batch: its first and last offset, its number of records, and their newest time."""

    first: int
    last: int
    records: int
    timestamp_ms: int


def extent_of(raw: memoryview) -> Extent:
    """Return the extent of a batch of any version; versions 0 and 1 give only their last offset."""
    first, _ = _OFFSET_AND_LENGTH.unpack_from(raw)
    if len(raw) < _HEADER.size or raw[_MAGIC_AT] < 2:
        return Extent(first, first, 1, 0)
    head = _HEADER.unpack_from(raw)
    return Extent(first, first + max(0, head[6]), max(1, head[12]), max(0, head[8]))


def opened(raw: memoryview) -> Any:
    """Return aiokafka's reader of a batch. Raises CorruptRecordException for a batch that is too short."""
    if len(raw) < _SMALLEST:
        raise CorruptRecordException(f"a batch of {len(raw)} bytes")
    magic = raw[_MAGIC_AT]
    return DefaultRecordBatch(bytes(raw)) if magic >= 2 else LegacyRecordBatch(bytes(raw), magic)


@dataclass(frozen=True, slots=True)
class Piece:
    """One record of a batch; if it could not be read, `fault` says why and `value` is its bytes."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    fault: str = ""


def pieces_of(raw: memoryview) -> Iterator[Piece]:
    """Yield the records of a batch of version 2 one by one; a damaged record does not hide the records after it.

    Header names that are not UTF-8 are escaped. Raises what the codecs raise, and ValueError or IndexError if even the
    beginnings of the records cannot be found.
    """
    if len(raw) < _HEADER.size or raw[_MAGIC_AT] < 2:
        raise ValueError("no batch of version 2")
    head = _HEADER.unpack_from(raw)
    first, attributes, last_delta, base_ms, newest_ms, count = head[0], *head[5:9], head[12]
    codec = attributes & _CODEC_MASK
    if codec not in _CODECS:
        raise ValueError(f"unknown codec {codec}")
    data = _CODECS[codec](raw[_HEADER.size :])
    at = 0
    for number in range(count):
        length, begin = _varint(data, at)
        at = begin + length
        if length < 0 or at > len(data):
            raise ValueError(f"a record of {length} bytes, {len(data) - begin} are left")
        offset, timestamp_ms = first + number, newest_ms
        try:
            delta_ms, inside = _varint(data, begin + 1)
            delta, inside = _varint(data, inside)
            if not number <= delta <= last_delta:
                raise ValueError(f"offset {delta} of a batch that ends at {last_delta}")
            offset = first + delta
            timestamp_ms = newest_ms if attributes & _APPEND_TIME else base_ms + delta_ms
            key, inside = _nullable(data, inside, at)
            value, inside = _nullable(data, inside, at)
            headers, inside = _headers(data, inside, at)
            yield Piece(offset, timestamp_ms, key, value, headers)
        except (ValueError, IndexError) as error:
            yield Piece(min(offset, first + last_delta), timestamp_ms, None, data[begin:at], (), str(error))


def _headers(data: bytes, at: int, end: int) -> tuple[tuple[tuple[str, bytes | None], ...], int]:
    count, at = _varint(data, at)
    if not 0 <= count <= end - at:
        raise ValueError(f"{count} headers")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        name, at = _nullable(data, at, end)
        value, at = _nullable(data, at, end)
        headers.append(((name or b"").decode("utf-8", "backslashreplace"), value))
    return tuple(headers), at


def _nullable(data: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    length, at = _varint(data, at)
    if length < 0:
        return None, at
    if at + length > end:
        raise ValueError(f"a field of {length} bytes, {end - at} are left")
    return data[at : at + length], at + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a zigzag-encoded number and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
