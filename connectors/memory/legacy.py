"""The legacy side of one collection in memory, for simulations: table, ledger, and the changes that capture reports.

It fulfils the contract of the real adapters, and uses their canonical forms. Nothing outlives the process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from connectors.errors import Refused
from connectors.sql.guarded_writes import NOT_SEEN
from connectors.sql.layout import HIGHEST_SIGNED, VERSION_COLUMN, canonical_key, content_refusal
from domain.fold import is_echo
from domain.guards import ledger_moves
from domain.ledger import LedgerRow, VectorMark
from domain.legacy import (
    Coverage,
    Diagnostic,
    LegacyChange,
    LegacyOutcome,
    LegacyRow,
    LegacyVerdict,
    TableDescription,
    keeps_embedding,
    row_differs,
)
from schemas.content import Content, content_hash
from schemas.documents import DocumentChanged
from schemas.values import Kind, canonical

Constraint = Callable[[str, Content], str | None]
Trigger = Callable[[LegacyRow], LegacyRow | None]


class MemoryLegacy:
    """Rows and ledger of one collection. `captured` grows with every change of a row, ours and the application's.

    `images` has the rows before and after each of those changes, as a database's log does. `constraint` stands for a
    constraint of the database: it returns why a row is refused, or None. `trigger` stands for a trigger before
    crossfade's upserts: it returns the row to store instead. None stores no row, which is a refusal.
    """

    def __init__(
        self,
        name: str,
        description: TableDescription,
        *,
        key_kinds: Sequence[Kind] | None = None,
        constraint: Constraint = lambda _id, _content: None,
        trigger: Trigger = lambda row: row,
        source_epoch: int = 1,
    ) -> None:
        self.name = name
        self.description = description
        self.key_kinds = tuple(key_kinds or [Kind.TEXT] * len(description.key))
        self.constraint = constraint
        self.trigger = trigger
        self.source_epoch = source_epoch
        self.stored: dict[str, LegacyRow] = {}
        self.ledger_rows: dict[str, LedgerRow] = {}
        self.recorded: dict[str, int] = {}
        self.identities: dict[str, str] = {}
        self.captured: list[DocumentChanged] = []
        self.images: list[tuple[LegacyRow | None, LegacyRow | None]] = []

    def write_directly(self, document_id: str, content: Content) -> None:
        """Insert or update a row as an application does with SQL: the version column stays unchanged."""
        old = self.stored.get(document_id)
        self.put(LegacyRow(document_id, old.version if old else None, self.normal(content)))

    def delete_directly(self, document_id: str) -> None:
        """Delete a row as an application does with SQL."""
        self.drop(document_id)

    def put(self, row: LegacyRow) -> None:
        """Store a row and capture the change."""
        old = self.stored.get(row.id)
        self.stored[row.id] = row
        self._capture(row.id, old, row)

    def drop(self, document_id: str) -> None:
        """Delete a row and capture the change. Capture nothing if the row does not exist."""
        old = self.stored.pop(document_id, None)
        if old is not None:
            self._capture(document_id, old, None)

    def _capture(self, document_id: str, before: LegacyRow | None, after: LegacyRow | None) -> None:
        self.images.append((before, after))
        changed = DocumentChanged(
            collection=self.name,
            id=document_id,
            origin="legacy",
            deleted=after is None,
            before_version=before.version if before else None,
            after_version=after.version if after else None,
            position=(self.source_epoch, 1, len(self.captured) + 1),
        )
        if after is not None and not is_echo(changed):
            content_of = {"content": after.content, "content_hash": content_hash(after.content)}
            changed = changed.model_copy(update=content_of)
        self.captured.append(changed)

    def key_of(self, document_id: str) -> tuple[int | str, ...] | None:
        """Return the key of an id, in the order of the table. None if no row could have that id."""
        parts = canonical_key(document_id, self.key_kinds, [HIGHEST_SIGNED] * len(self.key_kinds))
        if parts is None:
            return None
        pairs = zip(self.key_kinds, parts, strict=True)
        return tuple(int(part) if kind is Kind.INTEGER else part for kind, part in pairs)

    def normal(self, content: Content) -> Content:
        """Return a content as it would be read back from a table with this description."""
        kinds = self.description.metadata
        return Content(
            tenant=content.tenant,
            text={name: content.text.get(name) for name in self.description.text},
            metadata={name: canonical(kind, content.metadata.get(name)) for name, kind in kinds.items()},
            embedding=content.embedding if self.description.embedding else None,
        )


class MemoryTable:
    """`LegacyTable` over a `MemoryLegacy`. No call awaits anything, so every call is a transaction of its own."""

    def __init__(self, store: MemoryLegacy) -> None:
        self.description = store.description
        self._store = store

    async def apply(self, changes: Sequence[LegacyChange]) -> list[LegacyOutcome]:
        """See `LegacyTable.apply`."""
        return [self._apply(change) for change in changes]

    def _apply(self, change: LegacyChange) -> LegacyOutcome:
        store = self._store
        row = store.ledger_rows.get(change.id, LedgerRow())
        if not ledger_moves(row.legacy_version, change.version):
            unconfirmed = row.refused_version == change.version
            return LegacyOutcome(LegacyVerdict.SUPERSEDED, unconfirmed=unconfirmed)
        refusal = self._refusal(change)
        if refusal is not None:
            store.ledger_rows[change.id] = replace(row, legacy_version=change.version, refused_version=change.version)
            return LegacyOutcome(LegacyVerdict.REFUSED, refusal)
        store.ledger_rows[change.id] = replace(row, legacy_version=change.version)
        if change.written is not None and change.content is not None:
            held = store.trigger(LegacyRow(change.id, change.written, self._merged(change, change.content)))
            if held is None or held.version != change.written:
                store.ledger_rows[change.id] = replace(
                    row, legacy_version=change.version, refused_version=change.version
                )
                return LegacyOutcome(LegacyVerdict.REFUSED, NOT_SEEN)
            store.put(held)
            return LegacyOutcome(LegacyVerdict.APPLIED, differs=row_differs(self.description, change, held))
        if change.written is not None:
            store.drop(change.id)
        return LegacyOutcome(LegacyVerdict.APPLIED)

    def _merged(self, change: LegacyChange, content: Content) -> Content:
        """Return the new content of the row. Values that the change omits stay those of the row, or NULL."""
        table, old = self.description, self._store.stored.get(change.id)
        held = old.content if old else self._store.normal(Content(text={}))
        texts = {name: value for name, value in content.text.items() if name not in change.omitted}
        metadata = {name: value for name, value in content.metadata.items() if name not in change.omitted}
        merged = Content(
            tenant=held.tenant if table.tenant in change.omitted else content.tenant,
            text={**held.text, **texts},
            metadata={**held.metadata, **metadata},
            embedding=content.embedding,
        )
        if keeps_embedding(table, change) and merged.text == held.text:
            merged = merged.model_copy(update={"embedding": held.embedding})
        return self._store.normal(merged)

    def _refusal(self, change: LegacyChange) -> str | None:
        if change.written is None or change.content is None:
            return None
        if self._store.key_of(change.id) is None:
            return f"the id is not a key of the table ({', '.join(self.description.key)})"
        refusal = content_refusal(self.description, change.content)
        return refusal or self._store.constraint(change.id, self._merged(change, change.content))

    async def rows(self, ids: Sequence[str]) -> dict[str, LegacyRow]:
        """See `LegacyTable.rows`."""
        return {one: self._store.stored[one] for one in ids if one in self._store.stored}

    async def existing(self, ids: Sequence[str]) -> set[str]:
        """See `LegacyTable.existing`."""
        return {one for one in ids if one in self._store.stored}

    async def columns(self) -> frozenset[str]:
        """See `LegacyTable.columns`."""
        table = self.description
        optional = [name for name in (table.tenant, table.embedding) if name]
        return frozenset([*table.key, *table.text, *table.metadata, *optional, VERSION_COLUMN])

    async def check(self) -> list[Diagnostic]:
        """See `LegacyTable.check`: nothing can be wrong with a table made from its description."""
        return []

    async def altered(self) -> str | None:
        """See `LegacyTable.altered`: the columns are always those of the description."""
        return None

    async def close(self) -> None:
        """See `LegacyTable.close`."""


class MemoryBulk:
    """`BulkTable` over a `MemoryLegacy`."""

    def __init__(self, store: MemoryLegacy) -> None:
        self._store = store

    async def bound(self, after: str | None, rows: int) -> str | None:
        """See `BulkTable.bound`."""
        ids = self._ids(after, None)
        return ids[rows - 1] if len(ids) >= rows else None

    async def scan_range(self, after: str | None, upto: str | None, limit: int) -> list[LegacyRow]:
        """See `BulkTable.scan_range`."""
        return [self._store.stored[one] for one in self._ids(after, upto)[:limit]]

    async def count(self, after: str | None, upto: str | None) -> int:
        """See `BulkTable.count`."""
        return len(self._ids(after, upto))

    async def ids(self, after: str | None, upto: str | None) -> list[str]:
        """See `BulkTable.ids`."""
        return self._ids(after, upto)

    async def coverage(self, ranges: Sequence[tuple[str | None, str | None]]) -> Coverage:
        """See `BulkTable.coverage`."""
        rows = list(self._store.stored)
        without_id = sum(self._store.key_of(one) is None for one in rows)
        return Coverage(len(rows), sum(len(self._ids(*bounds)) for bounds in ranges), without_id)

    async def estimated_rows(self) -> int:
        """See `BulkTable.estimated_rows`."""
        return len(self._store.stored)

    async def running_statements(self) -> int:
        """See `BulkTable.running_statements`."""
        return 0

    def _ids(self, after: str | None, upto: str | None) -> list[str]:
        keys = sorted((key, one) for one in self._store.stored if (key := self._store.key_of(one)) is not None)
        first, last = (None if bound is None else self._store.key_of(bound) for bound in (after, upto))
        if (after is not None and first is None) or (upto is not None and last is None):
            raise Refused("a range cannot begin or end at something that is not a key of the table")
        return [one for key, one in keys if (first is None or key > first) and (last is None or key <= last)]


class MemoryLedger:
    """`Ledger` over a `MemoryLegacy`."""

    def __init__(self, store: MemoryLegacy) -> None:
        self._store = store

    async def read(self, ids: Sequence[str]) -> dict[str, LedgerRow]:
        """See `Ledger.read`."""
        return {one: self._store.ledger_rows[one] for one in ids if one in self._store.ledger_rows}

    async def save_fold(self, rows: Mapping[str, LedgerRow]) -> None:
        """See `Ledger.save_fold`."""
        for one, given in rows.items():
            row = self._store.ledger_rows.get(one)
            if row is None or row.state.version < given.state.version:
                self._store.ledger_rows[one] = replace(row or LedgerRow(), state=given.state)

    async def vectors_written(self, marks: Sequence[VectorMark]) -> None:
        """See `Ledger.vectors_written`."""
        for mark in marks:
            row = self._store.ledger_rows.get(mark.id)
            if row is None or row.vector_version < mark.version:
                self._store.ledger_rows[mark.id] = replace(
                    row or LedgerRow(),
                    vector_version=mark.version,
                    content_hash=mark.content_hash,
                    chunk_count=mark.chunk_count,
                    embedding_model=mark.embedding_model,
                )

    async def confirm_refusals(self, versions: Mapping[str, int]) -> None:
        """See `Ledger.confirm_refusals`."""
        for one, version in versions.items():
            row = self._store.ledger_rows.get(one)
            if row is not None and row.refused_version == version:
                self._store.ledger_rows[one] = replace(row, refused_version=0)

    async def page(self, after: str, limit: int) -> dict[str, LedgerRow]:
        """See `Ledger.page`."""
        rows = self._store.ledger_rows
        return {one: rows[one] for one in sorted(one for one in rows if one > after)[:limit]}

    async def put_back(self, document_id: str, versions: Mapping[str, tuple[int, int]]) -> None:
        """See `Ledger.put_back`."""
        row = self._store.ledger_rows.get(document_id, LedgerRow())

        def of(name: str, now: int) -> int:
            held, instead = versions.get(name, (now, now))
            return instead if now == held else now

        self._store.ledger_rows[document_id] = replace(
            row,
            state=replace(row.state, version=of("version", row.state.version)),
            legacy_version=of("legacy_version", row.legacy_version),
            vector_version=of("vector_version", row.vector_version),
        )

    async def forget_undelivered(self) -> int:
        """See `Ledger.forget_undelivered`."""
        found = {i: row for i, row in self._store.ledger_rows.items() if row.state.written > row.legacy_version}
        for one, row in found.items():
            state = replace(row.state, pending=False, removed=False, producer_positions=())
            self._store.ledger_rows[one] = replace(row, state=state)
        return len(found)

    async def get_meta(self, name: str) -> int | None:
        """See `Ledger.get_meta`."""
        return self._store.recorded.get(name)

    async def set_meta(self, name: str, value: int) -> None:
        """See `Ledger.set_meta`."""
        self._store.recorded[name] = value

    async def advance(self, name: str) -> int:
        """See `Ledger.advance`."""
        self._store.recorded[name] = self._store.recorded.get(name, 0) + 1
        return self._store.recorded[name]

    async def raise_to(self, name: str, value: int) -> None:
        """See `Ledger.raise_to`."""
        self._store.recorded[name] = max(self._store.recorded.get(name, value), value)

    async def claim(self, name: str, value: int) -> int:
        """See `Ledger.claim`."""
        return self._store.recorded.setdefault(name, value)

    async def identity(self, name: str) -> str | None:
        """See `Ledger.identity`."""
        return self._store.identities.get(name)

    async def set_identity(self, name: str, value: str) -> None:
        """See `Ledger.set_identity`."""
        self._store.identities[name] = value

    async def claim_identity(self, name: str, value: str) -> str:
        """See `Ledger.claim_identity`."""
        return self._store.identities.setdefault(name, value)
