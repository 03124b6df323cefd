"""The table of one collection in MariaDB: guarded set-based writes, locked reads. No search here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from connectors.errors import Refused
from connectors.mariadb.checks import check_layout
from connectors.mariadb.expressions import given, key_condition, key_list, kinds_written, read_list
from connectors.mariadb.pool import Pool, Session, places, quoted
from connectors.slices import slices
from connectors.sql_apply import APPLIED, apply_changes
from connectors.sql_layout import LEDGER_TABLE, VERSION_COLUMN, Layout
from connectors.sql_values import content_bytes, row_content, row_key
from domain.legacy import Finding, LegacyChange, LegacyOutcome, LegacyRow, LegacyVerdict, TableDescription

# Half of the server's default limit of 16 MiB for a statement, whose text may double by escaping.
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
        self._read = read_list(layout)
        self._kinds = kinds_written(layout)
        raw = self._form == "float32"
        self._places = ["UNHEX(%s)" if raw and n == self.description.embedding else "%s" for n in layout.write_columns]
        self._key = key_list(layout)

    async def apply(self, changes: Sequence[LegacyChange]) -> list[LegacyOutcome]:
        """See `LegacyTable.apply`."""
        return await apply_changes(self, self._layout, changes)

    async def write(self, changes: Sequence[LegacyChange]) -> dict[str, LegacyOutcome]:
        """Write changes, sorted by id, behind the ledger guard in one transaction. Raises Refused with nothing done."""
        async with self._pool.transaction() as session:
            outcomes = await self._guard(session, changes)
            moved = [change for change in changes if outcomes[change.id] is APPLIED and change.written is not None]
            upserts = [change for change in moved if change.content is not None]
            for part in slices(upserts, map(content_bytes, upserts), STATEMENT_BYTES):
                await self._upsert(session, part)
            await self._delete(session, [change.id for change in moved if change.content is None])
        return outcomes

    async def refuse(self, change: LegacyChange, reason: str) -> LegacyOutcome:
        """Move the ledger over a refused change and note it in `refused_version`, in one transaction."""
        async with self._pool.transaction() as session:
            outcome = (await self._guard(session, [change]))[change.id]
            if outcome is not APPLIED:
                return outcome
            statement = f"UPDATE {self._ledger} SET refused_version = %s WHERE collection = %s AND document_id = %s"  # noqa: S608 - quoted
            await session.execute(statement, (change.version, self._layout.name, change.id))
            return LegacyOutcome(LegacyVerdict.REFUSED, reason)

    async def _guard(self, session: Session, changes: Sequence[LegacyChange]) -> dict[str, LegacyOutcome]:
        """Lock the ledger rows in the order of their ids, and move up those that are lower."""
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

    async def _upsert(self, session: Session, changes: Sequence[LegacyChange]) -> None:
        """Raises Refused where a row of another key took the values: an upsert follows every unique index there is."""
        columns = [quoted(name) for name in self._layout.write_columns]
        one = f"({', '.join(self._places)})"
        sets = ", ".join(f"{name} = VALUES({name})" for name in columns[len(self._layout.collection.key) :])
        statement = f"INSERT INTO {self._table} ({', '.join(columns)}) VALUES "  # noqa: S608 - quoted
        statement += ", ".join([one] * len(changes)) + f" ON DUPLICATE KEY UPDATE {sets}"
        values = [
            given(kind, value)
            for change in changes
            for kind, value in zip(self._kinds, self._layout.row_values(change), strict=True)
        ]
        await session.execute(statement, values)
        rows = await self._at(session, [change.id for change in changes], f"{self._key}, t.{VERSION_COLUMN}")
        written = {row_key(self.description, row): row[VERSION_COLUMN] for row in rows}
        if any(written.get(change.id) != str(change.written) for change in changes):
            raise Refused("1062: the key, or a unique value, belongs to another row (by the column's collation)")

    async def _delete(self, session: Session, ids: Sequence[str]) -> None:
        """Only rows of exactly these ids: under most collations other keys are equal to them too."""
        rows = await self._at(session, ids, self._key, " FOR UPDATE")
        exact = {row_key(self.description, row) for row in rows} & set(ids)
        keys = [key for key in map(self._layout.key_values, sorted(exact)) if key is not None]
        if keys:
            condition, values = key_condition(self._layout, keys)
            await session.execute(f"DELETE t FROM {self._table} t WHERE {condition}", values)

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
        return {row.id: row for row in map(self._row, records) if row.id in wanted}

    async def existing(self, ids: Sequence[str]) -> set[str]:
        """See `LegacyTable.existing`."""
        async with self._pool.session() as session:
            records = await self._at(session, ids, self._key)
        return {row_key(self.description, record) for record in records} & set(ids)

    async def check(self) -> list[Finding]:
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
