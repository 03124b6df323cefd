"""The ledger of one collection in MariaDB: `crossfade_ledger`, `crossfade_meta` and `crossfade_identities`.

They are in the database of the collection's table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from connectors.sql.layout import IDENTITY_TABLE, LEDGER_TABLE, META_TABLE, Layout
from connectors.sql.ledger import LEDGER_COLUMNS, VERSION_COLUMNS, ledger_row, position_text
from connectors.sql.mariadb.pool import Pool, places, quoted
from domain.ledger import LedgerRow, VectorMark

# Ids are compared character by character: case and trailing blanks matter.
_LEDGER = """
CREATE TABLE IF NOT EXISTS {ledger} (
    collection VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    document_id VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
    version BIGINT NOT NULL DEFAULT 0,
    written BIGINT NOT NULL DEFAULT 0,
    pending BOOLEAN NOT NULL DEFAULT FALSE,
    removed BOOLEAN NOT NULL DEFAULT FALSE,
    refresh BOOLEAN NOT NULL DEFAULT FALSE,
    legacy_position VARCHAR(255) CHARACTER SET ascii NOT NULL DEFAULT '[]',
    producer_positions TEXT CHARACTER SET ascii NOT NULL DEFAULT '[]',
    legacy_version BIGINT NOT NULL DEFAULT 0,
    refused_version BIGINT NOT NULL DEFAULT 0,
    vector_version BIGINT NOT NULL DEFAULT 0,
    content_hash VARCHAR(64) CHARACTER SET ascii,
    chunk_count INT,
    embedding_model VARCHAR(255) CHARACTER SET utf8mb4,
    created_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
    PRIMARY KEY (collection, document_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC
"""
_META = """
CREATE TABLE IF NOT EXISTS {meta} (
    name VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin PRIMARY KEY, value BIGINT NOT NULL
) ENGINE=InnoDB
"""
_IDENTITIES = """
CREATE TABLE IF NOT EXISTS {identities} (
    name VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin PRIMARY KEY,
    value VARCHAR(1000) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL
) ENGINE=InnoDB
"""

_STATE = ("version", "written", "pending", "removed", "refresh", "legacy_position", "producer_positions")
_VECTOR = ("vector_version", "content_hash", "chunk_count", "embedding_model")


class MariadbLedger:
    """`Ledger` of one collection. Statements lock documents in the order of their ids, so they never deadlock."""

    def __init__(self, pool: Pool, layout: Layout) -> None:
        self._pool = pool
        self._collection = layout.name
        self._ledger = quoted(layout.schema, LEDGER_TABLE)
        self._meta = quoted(layout.schema, META_TABLE)
        self._identities = quoted(layout.schema, IDENTITY_TABLE)

    async def prepare(self) -> None:
        """Create the tables that are missing. The user's table is never altered."""
        async with self._pool.session() as session:
            await session.execute(_LEDGER.format(ledger=self._ledger))
            await session.execute(_META.format(meta=self._meta))
            await session.execute(_IDENTITIES.format(identities=self._identities))

    async def read(self, ids: Sequence[str]) -> dict[str, LedgerRow]:
        """See `Ledger.read`."""
        if not ids:
            return {}
        statement = (
            f"SELECT {', '.join(LEDGER_COLUMNS)} FROM {self._ledger} "  # noqa: S608 - a quoted identifier
            f"WHERE collection = %s AND document_id IN ({places(len(ids))})"
        )
        async with self._pool.session() as session:
            records = await session.fetch(statement, (self._collection, *ids))
        return {record["document_id"]: ledger_row([record[name] for name in LEDGER_COLUMNS]) for record in records}

    async def save_fold(self, rows: Mapping[str, LedgerRow]) -> None:
        """See `Ledger.save_fold`."""
        values: list[list[Any]] = []
        for one in sorted(rows):
            state = rows[one].state
            flags = [int(state.pending), int(state.removed), int(state.refresh)]
            positions = [position_text(state.legacy_position), position_text(state.producer_positions)]
            values.append([one, state.version, state.written, *flags, *positions])
        await self._raise(_STATE, values)

    async def vectors_written(self, marks: Sequence[VectorMark]) -> None:
        """See `Ledger.vectors_written`."""
        marks = sorted(marks, key=lambda mark: (mark.id, mark.version))
        await self._raise(
            _VECTOR,
            [[mark.id, mark.version, mark.content_hash, mark.chunk_count, mark.embedding_model] for mark in marks],
        )

    async def _raise(self, columns: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> None:
        """Store rows of (id, *columns) if the first column, a version, is higher than the stored one.

        The version is assigned last: MariaDB evaluates assignments in order, and each one reads the stored version.
        """
        if not rows:
            return
        version = columns[0]
        moves = [f"{c} = IF({version} < VALUES({version}), VALUES({c}), {c})" for c in (*columns[1:], version)]
        one = f"({places(len(columns) + 2)})"
        statement = (
            f"INSERT INTO {self._ledger} (collection, document_id, {', '.join(columns)}) "  # noqa: S608 - quoted
            f"VALUES {', '.join([one] * len(rows))} ON DUPLICATE KEY UPDATE {', '.join(moves)}"
        )
        async with self._pool.session() as session:
            await session.execute(statement, [value for row in rows for value in (self._collection, *row)])

    async def confirm_refusals(self, versions: Mapping[str, int]) -> None:
        """See `Ledger.confirm_refusals`."""
        statement = (
            f"UPDATE {self._ledger} SET refused_version = 0 "  # noqa: S608 - a quoted identifier
            "WHERE collection = %s AND document_id = %s AND refused_version = %s"
        )
        async with self._pool.session() as session:
            for one in sorted(versions):
                await session.execute(statement, (self._collection, one, versions[one]))

    async def page(self, after: str, limit: int) -> dict[str, LedgerRow]:
        """See `Ledger.page`."""
        statement = (
            f"SELECT {', '.join(LEDGER_COLUMNS)} FROM {self._ledger} "  # noqa: S608 - a quoted identifier
            "WHERE collection = %s AND document_id > %s ORDER BY document_id LIMIT %s"
        )
        async with self._pool.session() as session:
            records = await session.fetch(statement, (self._collection, after, limit))
        return {record["document_id"]: ledger_row([record[name] for name in LEDGER_COLUMNS]) for record in records}

    async def put_back(self, document_id: str, versions: Mapping[str, tuple[int, int]]) -> None:
        """See `Ledger.put_back`."""
        async with self._pool.transaction() as session:
            for name in VERSION_COLUMNS:
                if name in versions:
                    held, instead = versions[name]
                    statement = (
                        f"UPDATE {self._ledger} SET {name} = %s "  # noqa: S608 - a quoted identifier
                        f"WHERE collection = %s AND document_id = %s AND {name} = %s"
                    )
                    await session.execute(statement, (instead, self._collection, document_id, held))

    async def forget_undelivered(self) -> int:
        """See `Ledger.forget_undelivered`."""
        where = f"FROM {self._ledger} WHERE collection = %s AND written > legacy_version"
        statement = (
            f"UPDATE {self._ledger} SET pending = 0, removed = 0, producer_positions = '[]' "  # noqa: S608 - quoted
            "WHERE collection = %s AND written > legacy_version"
        )
        async with self._pool.session() as session:
            found = await session.fetch(f"SELECT COUNT(*) AS number {where}", (self._collection,))
            await session.execute(statement, (self._collection,))
        return int(found[0]["number"])

    async def get_meta(self, name: str) -> int | None:
        """See `Ledger.get_meta`."""
        value = await self._value(self._meta, name)
        return None if value is None else int(value)

    async def set_meta(self, name: str, value: int) -> None:
        """See `Ledger.set_meta`."""
        await self._set_value(self._meta, name, value)

    async def advance(self, name: str) -> int:
        """See `Ledger.advance`."""
        statement = (
            f"INSERT INTO {self._meta} (name, value) VALUES (%s, LAST_INSERT_ID(1)) "  # noqa: S608 - quoted
            "ON DUPLICATE KEY UPDATE value = LAST_INSERT_ID(value + 1)"
        )
        async with self._pool.session() as session:
            await session.execute(statement, (name,))
            return int((await session.fetch("SELECT LAST_INSERT_ID() AS number"))[0]["number"])

    async def raise_to(self, name: str, value: int) -> None:
        """See `Ledger.raise_to`."""
        await self._set_value(self._meta, name, value, "GREATEST(value, VALUES(value))")

    async def claim(self, name: str, value: int) -> int:
        """See `Ledger.claim`."""
        return int(await self._claim(self._meta, name, value))

    async def identity(self, name: str) -> str | None:
        """See `Ledger.identity`."""
        value = await self._value(self._identities, name)
        return None if value is None else str(value)

    async def set_identity(self, name: str, value: str) -> None:
        """See `Ledger.set_identity`."""
        await self._set_value(self._identities, name, value)

    async def claim_identity(self, name: str, value: str) -> str:
        """See `Ledger.claim_identity`."""
        return str(await self._claim(self._identities, name, value))

    async def _claim(self, table: str, name: str, value: str | int) -> str | int:
        await self._set_value(table, name, value, "value")
        found = await self._value(table, name)
        return value if found is None else found

    async def _value(self, table: str, name: str) -> str | int | None:
        async with self._pool.session() as session:
            found = await session.fetch(f"SELECT value FROM {table} WHERE name = %s", (name,))  # noqa: S608 - quoted
        value: str | int | None = found[0]["value"] if found else None
        return value

    async def _set_value(self, table: str, name: str, value: str | int, instead: str = "VALUES(value)") -> None:
        """Record a value. If there is one already, set it to `instead`, an expression."""
        statement = (
            f"INSERT INTO {table} (name, value) VALUES (%s, %s) "  # noqa: S608 - a quoted identifier
            f"ON DUPLICATE KEY UPDATE value = {instead}"
        )
        async with self._pool.session() as session:
            await session.execute(statement, (name, value))
