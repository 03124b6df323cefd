"""One document in every place, as a page for a terminal and as a JSON document. Text is shortened unless `whole`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from domain.points import StoredChunk
from migration.inspect.document import Document, place_of
from migration.inspect.explain import LEDGER, LOG, POINTS, ROW, Explanation, checks_of
from schemas.content import content_hash

_SHORT = 60
_COLOURS = {"equal": "green", "absent": "green", "pending": "yellow", "unknown": "yellow"}


def page(document: Document, explanation: Explanation, *, whole: bool) -> RenderableType:
    """Return the verdict and its reasons, followed by a table for each place."""
    colour = _COLOURS.get(explanation.verdict, "red")
    title = Text(f"{document.collection}/{document.id}", "bold").append("  ")
    title.append(explanation.verdict, f"not bold {colour}")
    wording = [Text(f"  {sentence}") for sentence in explanation.messages]
    cut = [Text(f"  {place}: {why}", "yellow") for place, why in document.cut.items()]
    places = (_row(document, whole), _ledger(document), _points(document, whole), _log(document), _letters(document))
    return Group(title, *wording, *cut, *(part for place in places for part in (Text(), place)))


def document_of(document: Document, explanation: Explanation, *, whole: bool) -> dict[str, Any]:
    """Return everything as one JSON document. A vector is represented by its length or norm."""
    row, ledger, log = document.stores.row, document.stores.ledger, document.log
    return {
        "collection": document.collection,
        "id": document.id,
        "phase": document.phase,
        "verdict": explanation.verdict,
        "messages": list(explanation.messages),
        "said": list(explanation.messages),
        "quarantine": document.quarantine and document.quarantine.document,
        "stopped": document.quarantine and document.quarantine.document,
        "row": row
        and {
            "version": row.version,
            "content_hash": content_hash(row.content),
            "tenant": row.content.tenant,
            "text": {name: _text(value, whole) for name, value in row.content.text.items()},
            "metadata": row.content.metadata,
            "embedding_bytes": len(row.content.embedding) if row.content.embedding is not None else None,
        },
        "ledger": ledger and asdict(ledger),
        "points": [_point_document(document.id, point, whole) for point in document.stores.points],
        "log": log and asdict(log),
        "under_way": [asdict(each) for each in document.waiting],
        "dead_letters": [asdict(letter) for letter in document.letters],
        "unread": dict(document.unread),
        "cut": dict(document.cut),
    }


def _point_document(document_id: str, point: StoredChunk, whole: bool) -> dict[str, Any]:
    return {
        "chunk": point.chunk,
        "version": point.version,
        "deleted": point.deleted,
        "content_hash": point.content_hash,
        "tenant": point.tenant,
        "model": point.model,
        "text": _text(point.text, whole),
        "metadata": dict(point.metadata) if point.metadata is not None else None,
        **{f"{name}_right" if name != "norm" else name: v for name, v in asdict(checks_of(document_id, point)).items()},
    }


def _row(document: Document, whole: bool) -> RenderableType:
    row = document.stores.row
    if row is None:
        return _empty("row", document, ROW, "no row")
    table = _table("row", "column", "value")
    table.add_row("crossfade_version", place_of(row.version))
    table.add_row("content hash", content_hash(row.content))
    table.add_row("tenant", Text(row.content.tenant))
    for name, value in row.content.text.items():
        table.add_row(Text(name), _shown(value, whole))
    for name, metadata in row.content.metadata.items():
        table.add_row(Text(name), _shown(None if metadata is None else str(metadata), whole))
    if row.content.embedding is not None:
        table.add_row("embedding", f"{len(row.content.embedding) // 4} numbers")
    return table


def _ledger(document: Document) -> RenderableType:
    ledger = document.stores.ledger
    if ledger is None:
        return _empty("ledger", document, LEDGER, "no row: it never was in the log")
    state = ledger.state
    flags = [name for name in ("pending", "removed", "refresh") if getattr(state, name)]
    table = _table(
        "ledger", "folded to", "written", "flags", "table at", "Qdrant at", "content hash", "chunks", "model"
    )
    table.add_row(
        place_of(state.version),
        place_of(state.written),
        ", ".join(flags) or "-",
        place_of(ledger.legacy_version),
        place_of(ledger.vector_version),
        ledger.content_hash or "-",
        "-" if ledger.chunk_count is None else str(ledger.chunk_count),
        Text(ledger.embedding_model or "-"),
    )
    return table


def _points(document: Document, whole: bool) -> RenderableType:
    points = document.stores.points
    if not points:
        return _empty("points in Qdrant", document, POINTS, "none")
    names = ("chunk", "version", "content hash", "payload", "vector", "norm", "model", "text")
    table = _table("points in Qdrant", *names)
    for point in points:
        checks = checks_of(document.id, point)
        table.add_row(
            str(point.chunk),
            place_of(point.version) if point.version else "backfill",
            point.content_hash or "-",
            _right(checks.payload),
            Text("deleted", "dim") if point.deleted else _right(checks.vector),
            "-" if checks.norm is None else f"{checks.norm:.4f}",
            Text(point.model or "-"),
            _shown(point.text or None, whole),
        )
    return table


def _log(document: Document) -> RenderableType:
    log = document.log
    if log is None:
        return _empty("log", document, LOG, "not read")
    name = f"log, partition {log.partition}, offsets {log.first} to {log.end}"
    if not log.entries:
        return Text(f"{name}: no entry of it" + (f"; {log.cut}" if log.cut else ""))
    names = ("version", "written", "origin", "what", "row's version", "content hash", "comes to")
    table = _table(name + (f"; {log.cut}" if log.cut else ""), *names)
    for entry in log.entries:
        what = "deleted" if entry.deleted else "incomplete row" if entry.incomplete else "changed"
        origin = f"{entry.origin}, snapshot" if entry.snapshot else entry.origin
        versions = f"{place_of(entry.before_version)} → {place_of(entry.after_version)}"
        table.add_row(
            place_of(entry.version),
            _when(entry.written_at_ms),
            origin,
            what,
            versions if entry.origin == "legacy" else "-",
            entry.content_hash or "-",
            entry.comes_to or ("unknown" if LEDGER in document.unread else "folded"),
        )
    return table


def _letters(document: Document) -> RenderableType:
    if not document.letters:
        return _empty("dead letters", document, "dead letters", "none")
    table = _table("dead letters", "from", "place", "written", "stage", "error", "replayed")
    for letter in document.letters:
        place, wording = f"{letter.partition}:{letter.offset}", Text(f"{letter.error}: {letter.message}")
        replayed = "yes" if letter.replayed else "no"
        table.add_row(letter.source, place, _when(letter.written_at_ms), letter.stage, wording, replayed)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title, "bold"), title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _empty(name: str, document: Document, place: str, none: str) -> Text:
    why = document.unread.get(place) or (document.unread.get("kafka") if place in {LOG, "dead letters"} else None)
    text = Text(name, "bold").append(": ", "not bold")
    return text.append(f"not read: {why}", "not bold red") if why else text.append(none, "not bold")


def _right(right: bool | None) -> Text:
    if right is None:
        return Text("no checksum", "yellow")
    return Text("right", "green") if right else Text("wrong", "red")


def _text(value: str | None, whole: bool) -> str | None:
    if value is None or whole or len(value) <= _SHORT:
        return value
    return f"{value[:_SHORT]}… ({len(value)} characters)"


def _shown(value: str | None, whole: bool) -> Text:
    if value is None:
        return Text("-", "dim")
    wording = _text(value, whole) or ""
    return Text(wording if whole else " ".join(wording.split()))


def _when(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
