"""The table of one collection in MariaDB: guarded set-based writes and locked reads. No search is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from connectors.batching import slices
from connectors.errors import Refused
from connectors.sql.guarded_writes import (
    APPLIED,
    NOT_GONE,
    OTHERS_TOO,
    Shape,
    apply_changes,
    by_shape,
    require_unaltered,
    seen,
    writes_nothing,
)
from connectors.sql.layout import LEDGER_TABLE, VERSION_COLUMN, Layout, altered_columns
from connectors.sql.mariadb.checks import check_layout
from connectors.sql.mariadb.expressions import Given, given, key_condition, key_list, kinds_written, read_list
from connectors.sql.mariadb.layout import column_of, raw_columns
from connectors.sql.mariadb.pool import Pool, Session, places, quoted
from connectors.sql.values import content_bytes, row_content, row_key
from domain.legacy import Diagnostic, LegacyChange, LegacyOutcome, LegacyRow, LegacyVerdict, TableDescription

# Less than half of the server's default limit of 16 MiB for a statement: escaping may double its text.
STATEMENT_BYTES = 6 * 1024 * 1024


class MariadbTable:
    """`LegacyTable` of one collection; see `connectors.ports`."""

    def __init__(self, pool: Pool, layout: Layout) -> None:
        self.description: TableDescription = layout.description
        self._pool = pool
        self._layout = layout
        self._form = layout.collection.embedding.format if layout.collection.embedding else None
        self._ledger = quoted(layout.schema, LEDGER_TABLE)
        self._table = quoted(layout.schema, layout.table)
        self._nothing = writes_nothing(self._table, [quoted(name) for name in layout.write_columns])
        self._read = read_list(layout)
        self._kinds = dict(zip(layout.write_columns, kinds_written(layout), strict=True))
        raw = self._form == "float32"
        self._places = {
            name: "UNHEX(%s)" if raw and name == self.description.embedding else "%s" for name in layout.write_columns
        }
        self._key = key_list(layout)

    async def apply(self, changes: Sequence[LegacyChange]) -> list[LegacyOutcome]:
        """See `LegacyTable.apply`."""
        return await apply_changes(self, self._layout, changes)

    async def write(self, changes: Sequence[LegacyChange]) -> dict[str, LegacyOutcome]:
        """Write changes, sorted by id, behind the ledger guard in one transaction. On Refused, nothing is written."""
        async with self._pool.transaction() as session:
            outcomes = await self._guard(session, changes)
            moved = [change for change in changes if outcomes[change.id] is APPLIED and change.written is not None]
            for shape, upserts in by_shape(self._layout, [c for c in moved if c.content is not None]).items():
                for part in slices(upserts, map(content_bytes, upserts), STATEMENT_BYTES):
                    outcomes |= await self._upsert(session, shape, part)
            await self._delete(session, [change.id for change in moved if change.content is None])
        return outcomes

    async def usable(self) -> None:
        """Run write statements that match no row. Raises Misconfigured if no document could be written."""
        async with self._pool.transaction() as session:
            for statement in self._nothing:
                await session.execute(statement)

    async def altered(self) -> str | None:
        """See `LegacyTable.altered`."""
        async with self._pool.session() as session:
            raw = await raw_columns(session, self._layout.schema, self._layout.table)
        return altered_columns(self._layout, {name: column_of(each) for name, each in raw.items()})

    async def refuse(self, change: LegacyChange, reason: str) -> LegacyOutcome:
        """Advance the ledger past a refused change and record it in `refused_version`, in one transaction."""
        async with self._pool.transaction() as session:
            outcome = (await self._guard(session, [change]))[change.id]
            if outcome is not APPLIED:
                return outcome
            statement = f"UPDATE {self._ledger} SET refused_version = %s WHERE collection = %s AND document_id = %s"  # noqa: S608 - quoted
            await session.execute(statement, (change.version, self._layout.name, change.id))
            return LegacyOutcome(LegacyVerdict.REFUSED, reason)

    async def _guard(self, session: Session, changes: Sequence[LegacyChange]) -> dict[str, LegacyOutcome]:
        """Lock the ledger rows in the order of their ids, and raise the lower versions to those of the changes."""
        name, ids = self._layout.name, [change.id for change in changes]
        insert = f"INSERT INTO {self._ledger} (collection, document_id) VALUES "  # noqa: S608 - a quoted identifier
        insert += ", ".join(["(%s, %s)"] * len(ids)) + " ON DUPLICATE KEY UPDATE document_id = document_id"
        await session.execute(insert, [value for one in ids for value in (name, one)])
        select = (
            f"SELECT document_id, legacy_version, refused_version FROM {self._ledger} "  # noqa: S608 - quoted
            f"WHERE collection = %s AND document_id IN ({places(len(ids))}) FOR UPDATE"
        )
        rows = {row["document_id"]: row for row in await session.fetch(select, (name, *ids))}
        outcomes: dict[str, LegacyOutcome] = {}
        for change in changes:
            row = rows[change.id]
            unconfirmed = int(row["refused_version"]) == change.version
            late = LegacyOutcome(LegacyVerdict.SUPERSEDED, unconfirmed=unconfirmed)
            outcomes[change.id] = APPLIED if int(row["legacy_version"]) < change.version else late
        moved = [change for change in changes if outcomes[change.id] is APPLIED]
        if moved:
            move = f"INSERT INTO {self._ledger} (collection, document_id, legacy_version) VALUES "  # noqa: S608 - quoted
            move += ", ".join(["(%s, %s, %s)"] * len(moved))
            move += " ON DUPLICATE KEY UPDATE legacy_version = VALUES(legacy_version)"
            await session.execute(move, [value for c in moved for value in (name, c.id, c.version)])
        return outcomes

    async def _upsert(
        self, session: Session, shape: Shape, changes: Sequence[LegacyChange]
    ) -> dict[str, LegacyOutcome]:
        """Write rows, and read them back. Raises Refused if one is not there as it was written.

        An upsert matches on every unique index, so it may have written to the row of another key.
        """
        ids, missing = [change.id for change in changes], list(changes)
        if shape.partial:
            # Set only the named columns of an existing row. An INSERT would also require the columns without a default.
            there = await self._exact(session, ids)
            missing = [change for change in changes if change.id not in there]
            for change in changes:
                if change.id in there:
                    await self._update(session, shape, change)
        if missing:
            await self._insert(session, shape, missing)
        rows = map(self._row, await self._at(session, ids, self._read))
        return seen(self.description, changes, {row.id: row for row in rows})

    async def _insert(self, session: Session, shape: Shape, changes: Sequence[LegacyChange]) -> None:
        columns = [quoted(name) for name in shape.columns]
        one = f"({', '.join(self._places[name] for name in shape.columns)})"
        new = {name: (f"VALUES({quoted(name)})", ()) for name in shape.columns}
        sets, _ = self._sets(shape, new)
        statement = f"INSERT INTO {self._table} ({', '.join(columns)}) VALUES "  # noqa: S608 - a quoted identifier
        statement += ", ".join([one] * len(changes)) + f" ON DUPLICATE KEY UPDATE {sets}"
        await session.execute(statement, [value for change in changes for value in self._values(shape, change)])

    async def _update(self, session: Session, shape: Shape, change: LegacyChange) -> None:
        values = zip(shape.columns, self._values(shape, change), strict=True)
        sets, given_ = self._sets(shape, {name: (self._places[name], (value,)) for name, value in values})
        condition, key = key_condition(self._layout, [self._layout.key_values(change.id) or ()])
        statement = f"UPDATE {self._table} t SET {sets} WHERE {condition}"  # noqa: S608 - a quoted identifier
        if await session.execute(statement, [*given_, *key]) > 1:
            raise Refused(OTHERS_TOO)

    def _values(self, shape: Shape, change: LegacyChange) -> list[Given]:
        values = zip(shape.columns, self._layout.row_values(change, shape.columns), strict=True)
        return [given(self._kinds[name], value) for name, value in values]

    def _sets(self, shape: Shape, new: Mapping[str, tuple[str, tuple[Given, ...]]]) -> tuple[str, list[Given]]:
        """Return the assignments of new values, and their parameters.

        An omitted embedding stays as long as the text is unchanged. It comes first: MariaDB assigns in this order, and
        a later expression sees the values that are already assigned.
        """
        embedding, key = self.description.embedding, self._layout.collection.key
        assigned: list[tuple[str, str, tuple[Given, ...]]] = []
        if shape.keeps_embedding and embedding is not None and embedding in new:
            texts = [name for name in self.description.text if name in new]
            same = " AND ".join(f"BINARY {quoted(name)} <=> BINARY {new[name][0]}" for name in texts)
            parameters = tuple(value for name in texts for value in new[name][1])
            assigned.append((embedding, f"IF({same}, {quoted(embedding)}, NULL)", parameters))
        done = {embedding} if assigned else set()
        assigned += [(name, *new[name]) for name in new if name not in key and name not in done]
        sets = ", ".join(f"{quoted(name)} = {value}" for name, value, _ in assigned)
        return sets, [value for _, _, parameters in assigned for value in parameters]

    async def _delete(self, session: Session, ids: Sequence[str]) -> None:
        """Delete rows of exactly these ids. Raises Refused if one is still there."""
        exact = await self._exact(session, ids)
        keys = [key for key in map(self._layout.key_values, sorted(exact)) if key is not None]
        if keys:
            condition, values = key_condition(self._layout, keys)
            if await session.execute(f"DELETE t FROM {self._table} t WHERE {condition}", values) > len(keys):
                raise Refused(OTHERS_TOO)  # a number equals every text that starts with it
            if await self._exact(session, ids):
                raise Refused(NOT_GONE)

    async def _exact(self, session: Session, ids: Sequence[str]) -> set[str]:
        """Lock the rows of exactly these ids, and return the ids that exist. Most collations also match other keys."""
        rows = await self._at(session, ids, self._key, " FOR UPDATE")
        return {row_key(self.description, row) for row in rows} & set(ids)

    async def _at(self, session: Session, ids: Sequence[str], what: str, lock: str = "") -> list[dict[str, Any]]:
        keys = [key for key in map(self._layout.key_values, dict.fromkeys(ids)) if key is not None]
        if not keys:
            return []
        condition, values = key_condition(self._layout, keys)
        return await session.fetch(f"SELECT {what} FROM {self._table} t WHERE {condition}{lock}", values)  # noqa: S608 - quoted

    async def rows(self, ids: Sequence[str]) -> dict[str, LegacyRow]:
        """See `LegacyTable.rows`."""
        async with self._pool.session() as session:
            records = await self._at(session, ids, self._read, " LOCK IN SHARE MODE")
        wanted = set(ids)
        rows = {row.id: row for row in map(self._row, records) if row.id in wanted}
        if len(rows) < len(wanted):
            await require_unaltered(self)
        return rows

    async def existing(self, ids: Sequence[str]) -> set[str]:
        """See `LegacyTable.existing`."""
        async with self._pool.session() as session:
            records = await self._at(session, ids, self._key)
        return {row_key(self.description, record) for record in records} & set(ids)

    async def columns(self) -> frozenset[str]:
        """See `LegacyTable.columns`."""
        async with self._pool.session() as session:
            return frozenset(await raw_columns(session, self._layout.schema, self._layout.table))

    async def check(self) -> list[Diagnostic]:
        """See `LegacyTable.check`."""
        async with self._pool.session() as session:
            return await check_layout(session, self._layout.name, self._layout.collection, self._layout.schema)

    async def close(self) -> None:
        """See `LegacyTable.close`."""
        await self._pool.close()

    def _row(self, record: dict[str, Any]) -> LegacyRow:
        version = record[VERSION_COLUMN]
        content = row_content(self.description, self._form, record)
        return LegacyRow(row_key(self.description, record), None if version is None else int(version), content)
