"""Checksums over key ranges in memory: sums as the databases compute them, over rows as stored here."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import md5

from connectors.memory.legacy import MemoryBulk, MemoryLegacy
from connectors.sql.checksums import range_checksum


class MemoryChecksums:
    """`Checksums` over a `MemoryLegacy`. `asked` counts the requested ranges."""

    columns = "memory"

    def __init__(self, store: MemoryLegacy) -> None:
        self._rows = MemoryBulk(store)
        self._store = store
        self.asked = 0

    async def of_ranges(self, ranges: Sequence[tuple[str | None, str | None]]) -> list[str]:
        """See `Checksums.of_ranges`."""
        self.asked += len(ranges)
        found: list[str] = []
        for after, upto in ranges:
            rows = await self._rows.scan_range(after, upto, max(1, len(self._store.stored)))
            hashes = [md5(repr(row).encode(), usedforsecurity=False).digest() for row in rows]
            high = sum(int.from_bytes(digest[:8], "big") for digest in hashes)
            low = sum(int.from_bytes(digest[8:], "big") for digest in hashes)
            found.append(range_checksum(len(rows), high, low))
        return found
