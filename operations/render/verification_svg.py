"""Pictures of the report as SVG: bars, the strip of ranges, the rounds over time. Values in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape

from migration.verify.result import Verification
from schemas.tasks import RangeProof

# People with red-green colour blindness can distinguish these, too.
COLOURS = {"equal": "#2a8f6d", "different": "#c8423b", "pending": "#d9922e", "unknown": "#7a8496"}
_BAR = "#4a6fb5"
_WIDTH = 1000
_CELLS = 400
_WORST = ("different", "unknown", "pending", "equal")
_BAR_HEIGHT = 26


def bars(counts: Mapping[str, int]) -> str:
    """Return a bar for each count, the longest first; return an empty string if there are no counts."""
    if not counts:
        return ""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    most = ordered[0][1]
    parts = []
    for n, (name, count) in enumerate(ordered):
        y, width = n * _BAR_HEIGHT, max(2.0, 250 * count / most)
        parts.append(f'<text x="150" y="{y + 17}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="160" y="{y + 4}" width="{width:.1f}" height="18" rx="3" fill="{_BAR}"/>')
        parts.append(f'<text class="value" x="{168 + width:.1f}" y="{y + 17}">{count}</text>')
    return _svg(470, len(ordered) * _BAR_HEIGHT, "".join(parts), "differences, counted")


def strip(ranges: Sequence[RangeProof]) -> str:
    """Return the ranges in key order, coloured by verdict. If several ranges share a cell, the worst verdict wins."""
    if not ranges:
        return '<p class="note">There are none.</p>'
    cells = min(_CELLS, len(ranges))
    width = _WIDTH / cells
    gap = 1.0 if width > 4 else 0.0
    parts = []
    for n in range(cells):
        some = ranges[n * len(ranges) // cells : (n + 1) * len(ranges) // cells]
        verdict = next(one for one in _WORST if any(each.verdict == one for each in some))
        rows = sum(each.rows for each in some)
        title = f"{some[0].after or 'the beginning'} to {some[-1].upto or 'the end'}: {verdict}, {rows} rows"
        parts.append(
            f'<rect x="{n * width:.2f}" width="{width - gap:.2f}" height="34" fill="{COLOURS[verdict]}">'
            f"<title>{escape(title)}</title></rect>"
        )
    return _svg(_WIDTH, 34, "".join(parts), "ranges by verdict")


def rounds_picture(runs: Sequence[Verification]) -> str:
    """Return the counts of different, pending and unknown for each round over time, with the round's verdict below."""
    height, left, top = 170, 50, 12
    most = max(1, *(_open(run) for run in runs))
    step = (_WIDTH - left - 10) / len(runs)
    width = min(40.0, max(1.0, step * 0.7))
    parts = [_line(left, y, _WIDTH - 10) for y in (top, top + height)]
    parts += [_label(left - 8, top + 4, str(most), "end"), _label(left - 8, top + height + 4, "0", "end")]
    for n, run in enumerate(runs):
        x, y = left + n * step + (step - width) / 2, float(top + height)
        for verdict, count in (("different", run.found), ("pending", run.pending), ("unknown", _unknown(run))):
            tall = height * count / most
            y -= tall
            if count:
                parts.append(_rect(x, y, width, tall, COLOURS[verdict], f"round {run.round}: {count} {verdict}"))
        title = f"round {run.round}: {run.verdict}, {run.legacy_documents} documents"
        parts.append(_rect(x, top + height + 6, width, 6, COLOURS[run.verdict], title))
    for at, run in _ends(runs):
        x = left + 5 if at == "start" else _WIDTH - 15
        parts.append(_label(x, top + height + 30, f"round {run.round}, {_clock(run.ended_at_ms)}", at))
    return _svg(_WIDTH, top + height + 40, "".join(parts), "rounds over time")


def _open(run: Verification) -> int:
    return run.found + run.pending + _unknown(run)


def _unknown(run: Verification) -> int:
    return run.unknown + run.unchecked


def _ends(runs: Sequence[Verification]) -> Iterable[tuple[str, Verification]]:
    yield "start", runs[0]
    if len(runs) > 1:
        yield "end", runs[-1]


def _rect(x: float, y: float, width: float, height: float, colour: str, title: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{max(1.0, height):.1f}"'
    return f'<rect {place} rx="1.5" fill="{colour}"><title>{escape(title)}</title></rect>'


def _line(x: float, y: float, end: float) -> str:
    return f'<line x1="{x}" x2="{end}" y1="{y}" y2="{y}" stroke="var(--line)"/>'


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _svg(width: int, height: int, inner: str, what: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{what}">{inner}</svg>'
