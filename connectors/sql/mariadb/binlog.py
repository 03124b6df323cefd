"""The binary log of a MariaDB server: its files and its end. No events are read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connectors.errors import Misconfigured
from connectors.sql.mariadb.pool import Pool


@dataclass(frozen=True, slots=True)
class Binlog:
    """The sizes of the kept files, in their order, and the position at which the next event is written."""

    sizes: Mapping[str, int]
    file: str
    position: int

    @property
    def kept_bytes(self) -> int:
        """The total size of all files."""
        return sum(self.sizes.values())

    def behind_bytes(self, file: str, position: int) -> int | None:
        """Return how many bytes were written after a position, None if its file is no longer kept."""
        if file not in self.sizes:
            return None
        later = sum(size for name, size in self.sizes.items() if file < name < self.file)
        if file == self.file:
            return max(0, self.position - position)
        return max(0, self.sizes[file] - position) + later + self.position


async def binlog(dsn: str) -> Binlog:
    """Return the server's binary log. Raises Misconfigured if it has none or the role may not query it."""
    pool = Pool(dsn, maximum=1)
    try:
        async with pool.session() as session:
            files = await session.fetch("SHOW BINARY LOGS")
            status = await session.fetch("SHOW MASTER STATUS")
    finally:
        await pool.close()
    if not status:
        raise Misconfigured("the server writes no binary log")
    sizes = {row["Log_name"]: int(row["File_size"]) for row in files}
    return Binlog(sizes, status[0]["File"], int(status[0]["Position"]))
