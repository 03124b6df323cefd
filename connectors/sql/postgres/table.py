"""The table of one collection in PostgreSQL: guarded set-based writes and locked reads. No search is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from connectors.batching import slices
from connectors.errors import Refused
from connectors.sql.guarded_writes import (
    APPLIED,
    NOT_GONE,
    Shape,
    apply_changes,
    by_shape,
    require_unaltered,
    seen,
    writes_nothing,
)
from connectors.sql.layout import LEDGER_TABLE, VERSION_COLUMN, Layout, altered_columns
from connectors.sql.postgres.checks import check_layout
from connectors.sql.postgres.expressions import KEY_TYPES, read_list, selected
from connectors.sql.postgres.layout import column_of, raw_columns
from connectors.sql.postgres.pool import Pool, Session, quoted
from connectors.sql.values import content_bytes, row_content, row_key
from domain.legacy import Diagnostic, LegacyChange, LegacyOutcome, LegacyRow, LegacyVerdict, TableDescription

STATEMENT_BYTES = 32 * 1024 * 1024

_GUARD = """
INSERT INTO {ledger} AS l (collection, document_id, legacy_version)
SELECT $1, u.id, u.version FROM unnest($2::text[], $3::bigint[]) AS u(id, version)
ON CONFLICT (collection, document_id) DO UPDATE SET legacy_version = excluded.legacy_version, updated_at = now()
WHERE l.legacy_version < excluded.legacy_version
RETURNING document_id
"""

_REFUSE = """
INSERT INTO {ledger} AS l (collection, document_id, legacy_version, refused_version) VALUES ($1, $2, $3, $3)
ON CONFLICT (collection, document_id) DO UPDATE SET legacy_version = excluded.legacy_version,
    refused_version = excluded.refused_version, updated_at = now()
WHERE l.legacy_version < excluded.legacy_version
RETURNING document_id
"""

_REFUSED = """
SELECT document_id, refused_version FROM {ledger} WHERE collection = $1 AND document_id = ANY($2::text[])
"""


class PostgresTable:
    """`LegacyTable` of one collection; see `connectors.ports`."""

    def __init__(self, pool: Pool, layout: Layout) -> None:
        self.description: TableDescription = layout.description
        self._pool = pool
        self._layout = layout
        self._form = layout.collection.embedding.format if layout.collection.embedding else None
        ledger = quoted(layout.schema, LEDGER_TABLE)
        self._guard, self._refuse, self._refused = (s.format(ledger=ledger) for s in (_GUARD, _REFUSE, _REFUSED))
        self._sql = Statements(layout)
        self._nothing = writes_nothing(quoted(layout.schema, layout.table), [quoted(c) for c in layout.write_columns])

    async def apply(self, changes: Sequence[LegacyChange]) -> list[LegacyOutcome]:
        """See `LegacyTable.apply`."""
        return await apply_changes(self, self._layout, changes)

    async def write(self, changes: Sequence[LegacyChange]) -> dict[str, LegacyOutcome]:
        """Write changes, sorted by id, behind the ledger guard in one transaction. On Refused, nothing is written."""
        ids = [change.id for change in changes]
        async with self._pool.transaction() as session:
            guarded = await session.fetch(self._guard, self._layout.name, ids, [c.version for c in changes])
            moved = {record["document_id"] for record in guarded}
            outcomes = dict.fromkeys(moved, APPLIED)
            ours = [change for change in changes if change.id in moved and change.written is not None]
            for shape, upserts in by_shape(self._layout, [c for c in ours if c.content is not None]).items():
                for part in slices(upserts, map(content_bytes, upserts), STATEMENT_BYTES):
                    outcomes |= await self._upsert(session, shape, part)
            await self._delete(session, [change.id for change in ours if change.content is None])
            late = await self._superseded(session, [change for change in changes if change.id not in moved])
        return outcomes | late

    async def _upsert(
        self, session: Session, shape: Shape, changes: Sequence[LegacyChange]
    ) -> dict[str, LegacyOutcome]:
        """Write rows, and read them back. Raises Refused if one is not there as it was written."""
        values = {change.id: self._layout.row_values(change, shape.columns) for change in changes}
        missing = list(values)
        if shape.partial:
            # Set only the named columns of an existing row. An INSERT would also require the columns without a default.
            found = await session.fetch(self._sql.update(shape), *_arrays(list(values.values())))
            there = {row_key(self.description, record) for record in found}
            missing = [one for one in values if one not in there]
        if missing:
            await session.execute(self._sql.upsert(shape), *_arrays([values[one] for one in missing]))
        keys = self._keys([change.id for change in changes])
        rows = map(self._row, await session.fetch(self._sql.seen, *_columns(keys)))
        return seen(self.description, changes, {row.id: row for row in rows})

    async def _delete(self, session: Session, ids: Sequence[str]) -> None:
        """Delete rows. Raises Refused if one is still there."""
        keys = self._keys(ids)
        if not keys:
            return
        await session.execute(self._sql.delete, *_columns(keys))
        left = await session.fetch(self._sql.existing, *_columns(keys))
        if {row_key(self.description, record) for record in left} & set(ids):
            raise Refused(NOT_GONE)

    async def usable(self) -> None:
        """Run write statements that match no row. Raises Misconfigured if no document could be written."""
        async with self._pool.transaction() as session:
            for statement in self._nothing:
                await session.execute(statement)

    async def altered(self) -> str | None:
        """See `LegacyTable.altered`."""
        async with self._pool.session() as session:
            raw = await raw_columns(session, self._layout.collection.table)
        return altered_columns(self._layout, {name: column_of(each) for name, each in raw.items()})

    async def refuse(self, change: LegacyChange, reason: str) -> LegacyOutcome:
        """Advance the ledger past a refused change and record it in `refused_version`, in one transaction."""
        async with self._pool.transaction() as session:
            if await session.fetchval(self._refuse, self._layout.name, change.id, change.version) is not None:
                return LegacyOutcome(LegacyVerdict.REFUSED, reason)
            return (await self._superseded(session, [change]))[change.id]

    async def _superseded(self, session: Session, changes: Sequence[LegacyChange]) -> dict[str, LegacyOutcome]:
        if not changes:
            return {}
        records = await session.fetch(self._refused, self._layout.name, [change.id for change in changes])
        refused = {record["document_id"]: record["refused_version"] for record in records}
        return {
            change.id: LegacyOutcome(LegacyVerdict.SUPERSEDED, unconfirmed=refused.get(change.id) == change.version)
            for change in changes
        }

    async def rows(self, ids: Sequence[str]) -> dict[str, LegacyRow]:
        """See `LegacyTable.rows`."""
        wanted, keys = set(ids), self._keys(ids)
        rows: dict[str, LegacyRow] = {}
        if keys:
            async with self._pool.session() as session:
                records = await session.fetch(self._sql.rows, *_columns(keys))
            rows = {row.id: row for row in map(self._row, records) if row.id in wanted}
        if len(rows) < len(wanted):
            await require_unaltered(self)
        return rows

    async def existing(self, ids: Sequence[str]) -> set[str]:
        """See `LegacyTable.existing`."""
        keys = self._keys(ids)
        if not keys:
            return set()
        async with self._pool.session() as session:
            records = await session.fetch(self._sql.existing, *_columns(keys))
        return {row_key(self.description, record) for record in records} & set(ids)

    async def columns(self) -> frozenset[str]:
        """See `LegacyTable.columns`."""
        async with self._pool.session() as session:
            return frozenset(await raw_columns(session, self._layout.collection.table))

    async def check(self) -> list[Diagnostic]:
        """See `LegacyTable.check`."""
        async with self._pool.session() as session:
            return await check_layout(session, self._layout.name, self._layout.collection)

    async def close(self) -> None:
        """See `LegacyTable.close`."""
        await self._pool.close()

    def _keys(self, ids: Sequence[str]) -> list[tuple[str, ...]]:
        return [key for key in map(self._layout.key_values, dict.fromkeys(ids)) if key is not None]

    def _row(self, record: Any) -> LegacyRow:
        content = row_content(self.description, self._form, record)
        return LegacyRow(row_key(self.description, record), record[VERSION_COLUMN], content)


def _columns(rows: Sequence[tuple[str, ...]]) -> list[list[str]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _arrays(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


class Statements:
    """The SQL of one table. Identifiers are quoted, values are parameters."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._table = table = quoted(layout.schema, layout.table)
        self._key = key = [quoted(name) for name in layout.collection.key]
        types = [KEY_TYPES[kind] for kind in layout.key_kinds]
        read = read_list(layout)
        arrays = ", ".join(f"${n}::text[]" for n in range(1, len(key) + 1))
        names = ", ".join(f"k{n}" for n in range(len(key)))
        same = " AND ".join(f"t.{name} = u.k{n}::{types[n]}" for n, name in enumerate(key))
        self._same = " AND ".join(f"t.{name} = u.c{n}::{types[n]}" for n, name in enumerate(key))
        given = f"unnest({arrays}) AS u({names})"
        self.seen = f"SELECT {read} FROM {table} t JOIN {given} ON {same}"  # noqa: S608 - quoted
        self.rows = f"{self.seen} FOR SHARE OF t"
        self._keys = ", ".join(selected(layout.columns[name]) for name in layout.collection.key)
        self.existing = f"SELECT {self._keys} FROM {table} t JOIN {given} ON {same}"  # noqa: S608 - quoted
        self.delete = f"DELETE FROM {table} t USING {given} WHERE {same}"  # noqa: S608 - quoted
        self._upserts: dict[Shape, str] = {}

    def upsert(self, shape: Shape) -> str:
        """Return the upsert of a shape.

        It overrides an identity column that is always generated: the producer's key is the row's key.
        """
        known = self._upserts.get(shape)
        if known is None:
            names = [quoted(name) for name in shape.columns]
            values, source = self._given(shape)
            sets = self._sets(shape, {name: f"excluded.{quoted(name)}" for name in shape.columns})
            known = self._upserts[shape] = (
                f"INSERT INTO {self._table} AS t ({', '.join(names)}) OVERRIDING SYSTEM VALUE "  # noqa: S608 - quoted
                f"SELECT {', '.join(values)} FROM {source} ON CONFLICT ({', '.join(self._key)}) DO UPDATE SET {sets}"
            )
        return known

    def update(self, shape: Shape) -> str:
        """Return the update of existing rows. It sets only the given columns, and returns the keys of the rows."""
        values, source = self._given(shape)
        sets = self._sets(shape, dict(zip(shape.columns, values, strict=True)))
        return f"UPDATE {self._table} t SET {sets} FROM {source} WHERE {self._same} RETURNING {self._keys}"  # noqa: S608

    def _sets(self, shape: Shape, new: Mapping[str, str]) -> str:
        """Return the assignments of the new values. An omitted embedding stays as long as the text is unchanged."""
        description, embedding = self._layout.description, self._layout.description.embedding
        if shape.keeps_embedding and embedding is not None and embedding in new:
            same = " AND ".join(
                f't.{quoted(name)}::text COLLATE "C" IS NOT DISTINCT FROM ({new[name]})::text COLLATE "C"'
                for name in description.text
                if name in new
            )
            new = {**new, embedding: f"CASE WHEN {same} THEN t.{quoted(embedding)} END"}
        key = self._layout.collection.key
        return ", ".join(f"{quoted(name)} = {value}" for name, value in new.items() if name not in key)

    def _given(self, shape: Shape) -> tuple[list[str], str]:
        arrays, values = [], []
        for number, column in enumerate(self._layout.columns[name] for name in shape.columns):
            element = "bigint" if column.name == VERSION_COLUMN else "bytea" if column.sql_type == "bytea" else "text"
            arrays.append(f"${number + 1}::{element}[]")
            values.append(f"u.c{number}::{column.sql_type}")
        return values, f"unnest({', '.join(arrays)}) AS u({', '.join(f'c{n}' for n in range(len(values)))})"
