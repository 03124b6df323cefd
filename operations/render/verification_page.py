"""The report as one self-contained page: no script, no font and no picture from elsewhere.

The words and tables are made here, the pictures in `operations.render.verification_svg`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from string import Template

from domain.comparison import Difference
from migration.verify.result import Verification
from operations.render.verification import seconds_of
from operations.render.verification_svg import COLOURS, bars, rounds_picture, strip

_ROWS = 500
_SAID = {
    "equal": "Qdrant holds what the table holds",
    "different": "Qdrant does not hold what the table holds",
    "pending": "some changes were still in flight",
    "unknown": "something could not be read",
}
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$collection: $verdict</title>
<style>
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5d6778; --line: #dde2ea; --paper: #ffffff; --card: #f6f8fb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #9aa5b8; --line: #303948; --paper: #12161d; --card: #1a202a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 2.5rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
header { display: flex; flex-wrap: wrap; gap: .5rem 1.25rem; align-items: center; margin-bottom: 1.75rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.5rem 0 .75rem; }
.verdict { padding: .2rem .8rem; border-radius: 99px; color: #fff; background: $colour; font-weight: 600; }
.summary, .note { color: var(--soft); margin: 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .75rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; line-height: 1.3; }
.card span { color: var(--soft); font-size: .85rem; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 2rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
svg text.value { fill: var(--ink); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td { overflow-wrap: anywhere; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.key { display: inline-block; width: .7rem; height: .7rem; border-radius: 3px; margin: 0 .35rem 0 .9rem; }
.scroll { overflow-x: auto; }
</style>
</head>
<body>
<header>
<h1>$collection</h1><span class="verdict">$verdict</span>
<p class="summary">$summary</p>
</header>
<div class="cards">$cards</div>
<h2>Ranges of the table's key</h2>
$strip
<p class="note">$legend</p>
<div class="two">
<section><h2>Differences by kind</h2>$kinds</section>
<section><h2>Differences by reason</h2>$reasons</section>
</div>
<h2>Rounds</h2>
$rounds
$errors
<h2>Documents</h2>
$documents
</body>
</html>
""")


def page_of(runs: Sequence[Verification]) -> str:
    """Return the page of the last run. The earlier runs are its history."""
    run = runs[-1]
    return _PAGE.substitute(
        collection=escape(run.collection),
        verdict=run.verdict,
        summary=f"{_SAID[run.verdict]}, as of {_time(run.started_at_ms)}",
        colour=COLOURS[run.verdict],
        cards="".join(_cards(run)),
        strip=strip(run.ranges),
        legend="".join(_legend(run)),
        kinds=bars(run.kinds) or _none("There are none."),
        reasons=bars(run.reasons) or _none("There are none."),
        rounds=rounds_picture(runs) if len(runs) > 1 else _none(_one_round(run)),
        errors=_errors(run),
        documents=_documents(run),
    )


def _cards(run: Verification) -> Iterable[str]:
    age = None if run.oldest_at_ms is None else max(0, run.ended_at_ms - run.oldest_at_ms) / 1000
    sample = run.sample
    cosine = "none computed" if sample.lowest_cosine is None else f"lowest cosine {sample.lowest_cosine:.6f}"
    facts = (
        (_number(run.legacy_documents), "documents in the table, as it was read"),
        (_number(run.vector_documents), "documents in Qdrant, read after the table"),
        (_number(run.rows_read), "rows read"),
        (_number(run.found), "differences"),
        (_number(run.pending), "pending"),
        (_number(run.unknown + run.unchecked), "unknown"),
        (_number(run.settled), "settled at the recheck"),
        (_number(run.repaired), "repairs in flight"),
        (_number(sample.documents), f"embedded again, {cosine}"),
        ("-" if age is None else _span(age), "age of the oldest range at the end"),
    )
    for value, what in facts:
        yield f'<div class="card"><b>{value}</b><span>{what}</span></div>'


def _legend(run: Verification) -> Iterable[str]:
    counts = {verdict: sum(one.verdict == verdict for one in run.ranges) for verdict in COLOURS}
    yield f"{_number(len(run.ranges))} ranges, from the first key to the last:"
    for verdict, count in counts.items():
        if count:
            yield f'<span class="key" style="background:{COLOURS[verdict]}"></span>{_number(count)} {verdict}'


def _one_round(run: Verification) -> str:
    seconds = seconds_of(run)
    rate = f", {_number(round(run.legacy_documents / seconds))} rows a second" if seconds > 0 else ""
    return f"One run of {_span(seconds)}{rate}."


def _errors(run: Verification) -> str:
    if not run.errors:
        return ""
    items = "".join(f"<li>{escape(error)}</li>" for error in run.errors[:_ROWS])
    return f"<h2>Not read</h2><ul>{items}</ul>"


def _documents(run: Verification) -> str:
    rows = [_row(difference) for difference in run.differences[:_ROWS]]
    rows += [
        f"<tr><td>{escape(one)}</td><td>pending</td><td></td><td></td><td></td></tr>"
        for one in run.pending_ids[: _ROWS - len(rows)]
    ]
    if not rows:
        return _none("No document differs.")
    more = run.found + run.pending - len(rows)
    rest = _none(f"and {_number(more)} more") if more > 0 else ""
    head = (
        "<th>document</th><th>kind</th><th>detail</th>"
        '<th class="number">version in the table</th><th class="number">in Qdrant</th>'
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>{rest}'


def _row(one: Difference) -> str:
    versions = "".join(
        f'<td class="number">{"-" if version is None else version}</td>'
        for version in (one.legacy_version, one.vector_version)
    )
    return f"<tr><td>{escape(one.id)}</td><td>{one.kind}</td><td>{escape(one.detail)}</td>{versions}</tr>"


def _none(text: str) -> str:
    return f'<p class="note">{text}</p>'


def _number(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
