"""The ledger of one collection in PostgreSQL: `crossfade_ledger`, `crossfade_meta` and `crossfade_identities`.

They are in the schema of the collection's table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from connectors.sql.layout import IDENTITY_TABLE, LEDGER_TABLE, META_TABLE, Layout
from connectors.sql.ledger import LEDGER_COLUMNS, VERSION_COLUMNS, ledger_row, position_text
from connectors.sql.postgres.pool import Pool, quoted
from domain.ledger import LedgerRow, VectorMark

# A quarter of each page stays free, so that the frequent updates of a row need no new index entries.
_PREPARE = """
SELECT pg_advisory_xact_lock(hashtext('crossfade prepare'));
CREATE TABLE IF NOT EXISTS {ledger} (
    collection text NOT NULL,
    document_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL DEFAULT 0,
    written bigint NOT NULL DEFAULT 0,
    pending boolean NOT NULL DEFAULT false,
    removed boolean NOT NULL DEFAULT false,
    refresh boolean NOT NULL DEFAULT false,
    legacy_position text NOT NULL DEFAULT '[]',
    producer_positions text NOT NULL DEFAULT '[]',
    legacy_version bigint NOT NULL DEFAULT 0,
    refused_version bigint NOT NULL DEFAULT 0,
    vector_version bigint NOT NULL DEFAULT 0,
    content_hash text,
    chunk_count integer,
    embedding_model text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (collection, document_id)
) WITH (fillfactor = 75);
CREATE TABLE IF NOT EXISTS {meta} (name text PRIMARY KEY, value bigint NOT NULL);
CREATE TABLE IF NOT EXISTS {identities} (name text PRIMARY KEY, value text NOT NULL);
"""

_READ = """
SELECT {columns} FROM {ledger} WHERE collection = $1 AND document_id = ANY($2::text[])
"""

_PAGE = """
SELECT {columns} FROM {ledger} WHERE collection = $1 AND document_id > $2 ORDER BY document_id LIMIT $3
"""

_PUT_BACK = """
UPDATE {ledger} SET {column} = $4, updated_at = now() WHERE collection = $1 AND document_id = $2 AND {column} = $3
"""

_FOLDED = """
INSERT INTO {ledger} AS l (collection, document_id, version, written, pending, removed, refresh,
                           legacy_position, producer_positions)
SELECT $1, u.* FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::boolean[], $6::boolean[], $7::boolean[],
                           $8::text[], $9::text[]) AS u
ON CONFLICT (collection, document_id) DO UPDATE SET
    version = excluded.version, written = excluded.written, pending = excluded.pending, removed = excluded.removed,
    refresh = excluded.refresh, legacy_position = excluded.legacy_position,
    producer_positions = excluded.producer_positions, updated_at = now()
WHERE l.version < excluded.version
"""

_VECTORS = """
INSERT INTO {ledger} AS l (collection, document_id, vector_version, content_hash, chunk_count, embedding_model)
SELECT $1, u.* FROM unnest($2::text[], $3::bigint[], $4::text[], $5::integer[], $6::text[]) AS u
ON CONFLICT (collection, document_id) DO UPDATE SET
    vector_version = excluded.vector_version, content_hash = excluded.content_hash,
    chunk_count = excluded.chunk_count, embedding_model = excluded.embedding_model, updated_at = now()
WHERE l.vector_version < excluded.vector_version
"""

_CONFIRM = """
UPDATE {ledger} SET refused_version = 0, updated_at = now()
WHERE collection = $1 AND document_id = $2 AND refused_version = $3
"""

_FORGET = """
WITH undelivered AS (
    UPDATE {ledger} SET pending = false, removed = false, producer_positions = '[]', updated_at = now()
    WHERE collection = $1 AND written > legacy_version RETURNING 1
)
SELECT count(*) FROM undelivered
"""


class PostgresLedger:
    """`Ledger` of one collection. Statements lock documents in the order of their ids, so they never deadlock."""

    def __init__(self, pool: Pool, layout: Layout) -> None:
        self._pool = pool
        self._collection = layout.name
        names = {"ledger": quoted(layout.schema, LEDGER_TABLE), "meta": quoted(layout.schema, META_TABLE)}
        names["columns"] = ", ".join(LEDGER_COLUMNS)
        self._meta = names["meta"]
        self._identities = names["identities"] = quoted(layout.schema, IDENTITY_TABLE)
        self._prepare = _PREPARE.format(**names)
        self._page = _PAGE.format(**names)
        self._put_back = {name: _PUT_BACK.format(column=name, **names) for name in VERSION_COLUMNS}
        self._read, self._folded, self._vectors, self._confirm, self._forget = (
            statement.format(**names) for statement in (_READ, _FOLDED, _VECTORS, _CONFIRM, _FORGET)
        )

    async def prepare(self) -> None:
        """Create the tables that are missing. The user's table is never altered."""
        async with self._pool.transaction() as session:
            await session.execute(self._prepare)

    async def read(self, ids: Sequence[str]) -> dict[str, LedgerRow]:
        """See `Ledger.read`."""
        if not ids:
            return {}
        async with self._pool.session() as session:
            records = await session.fetch(self._read, self._collection, list(ids))
        return {record["document_id"]: ledger_row(tuple(record)) for record in records}

    async def save_fold(self, rows: Mapping[str, LedgerRow]) -> None:
        """See `Ledger.save_fold`."""
        if not rows:
            return
        ids = sorted(rows)
        states = [rows[one].state for one in ids]
        async with self._pool.session() as session:
            await session.execute(
                self._folded,
                self._collection,
                ids,
                [state.version for state in states],
                [state.written for state in states],
                [state.pending for state in states],
                [state.removed for state in states],
                [state.refresh for state in states],
                [position_text(state.legacy_position) for state in states],
                [position_text(state.producer_positions) for state in states],
            )

    async def vectors_written(self, marks: Sequence[VectorMark]) -> None:
        """See `Ledger.vectors_written`."""
        if not marks:
            return
        # One row per document: a statement may not touch a row twice.
        newest: dict[str, VectorMark] = {}
        for mark in sorted(marks, key=lambda one: (one.id, one.version)):
            newest[mark.id] = mark
        chosen = list(newest.values())
        async with self._pool.session() as session:
            await session.execute(
                self._vectors,
                self._collection,
                [mark.id for mark in chosen],
                [mark.version for mark in chosen],
                [mark.content_hash for mark in chosen],
                [mark.chunk_count for mark in chosen],
                [mark.embedding_model for mark in chosen],
            )

    async def confirm_refusals(self, versions: Mapping[str, int]) -> None:
        """See `Ledger.confirm_refusals`."""
        async with self._pool.session() as session:
            await session.executemany(
                self._confirm, [(self._collection, one, versions[one]) for one in sorted(versions)]
            )

    async def page(self, after: str, limit: int) -> dict[str, LedgerRow]:
        """See `Ledger.page`."""
        async with self._pool.session() as session:
            records = await session.fetch(self._page, self._collection, after, limit)
        return {record["document_id"]: ledger_row(tuple(record)) for record in records}

    async def put_back(self, document_id: str, versions: Mapping[str, tuple[int, int]]) -> None:
        """See `Ledger.put_back`."""
        async with self._pool.transaction() as session:
            for name, (held, instead) in versions.items():
                await session.execute(self._put_back[name], self._collection, document_id, held, instead)

    async def forget_undelivered(self) -> int:
        """See `Ledger.forget_undelivered`."""
        async with self._pool.session() as session:
            return int(await session.fetchval(self._forget, self._collection) or 0)

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
            f"INSERT INTO {self._meta} AS m (name, value) VALUES ($1, 1) "  # noqa: S608 - a quoted identifier
            "ON CONFLICT (name) DO UPDATE SET value = m.value + 1 RETURNING value"
        )
        async with self._pool.session() as session:
            return int(await session.fetchval(statement, name))

    async def raise_to(self, name: str, value: int) -> None:
        """See `Ledger.raise_to`."""
        statement = (
            f"INSERT INTO {self._meta} AS m (name, value) VALUES ($1, $2) "  # noqa: S608 - a quoted identifier
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE m.value < excluded.value"
        )
        async with self._pool.session() as session:
            await session.execute(statement, name, value)

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
        statement = (
            f"INSERT INTO {table} (name, value) VALUES ($1, $2) "  # noqa: S608 - a quoted identifier
            "ON CONFLICT (name) DO NOTHING"
        )
        async with self._pool.session() as session:
            # The insert waits for a concurrent one that has not ended yet. The next statement then sees its row.
            await session.execute(statement, name, value)
        found = await self._value(table, name)
        return value if found is None else found

    async def _value(self, table: str, name: str) -> str | int | None:
        async with self._pool.session() as session:
            value: str | int | None = await session.fetchval(
                f"SELECT value FROM {table} WHERE name = $1",  # noqa: S608 - a quoted identifier
                name,
            )
        return value

    async def _set_value(self, table: str, name: str, value: str | int) -> None:
        statement = (
            f"INSERT INTO {table} (name, value) VALUES ($1, $2) "  # noqa: S608 - a quoted identifier
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        )
        async with self._pool.session() as session:
            await session.execute(statement, name, value)
