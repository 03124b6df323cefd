"""What is known of collections, as a page for a terminal. Nothing is read or decided here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from migration.capture.positions import ReplicationPosition
from migration.lag import RoleLag
from migration.status import Backfill, Progress, Proof

_GOOD, _DOUBTFUL, _BAD, _QUIET = "green", "yellow", "red", "dim"
_VERDICTS = {"equal": _GOOD, "different": _BAD, "pending": _DOUBTFUL, "unknown": _DOUBTFUL}
_STATES = {"running": _GOOD, "paused": _DOUBTFUL, "indexing": _GOOD, "failed": _BAD, "done": _GOOD}
_SLOW_S = 60.0
Line = tuple[str, Text]


def page(found: Sequence[Progress]) -> RenderableType:
    """Return one table per collection, under its name, phase and state."""
    return Group(*(part for progress in found for part in (_heading(progress), _table(progress), Text())))


def span(seconds: float) -> str:
    """Return a duration in the one or two units that matter: 4.2 s, 3 min 10 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for name, unit, lower, size in (("min", 60, "s", 1), ("h", 3600, "min", 60), ("d", 86_400, "h", 3600)):
        if seconds < unit * {"min": 60, "h": 24, "d": 10**9}[name]:
            return f"{int(seconds // unit)} {name} {int(seconds % unit // size)} {lower}"
    return f"{seconds:.0f} s"


def size(number: int) -> str:
    """Return a number of bytes in the unit that fits: 812 B, 3.4 MiB."""
    amount = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{number} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def _heading(progress: Progress) -> Text:
    heading = Text(progress.collection, style="bold").append(f"  {progress.phase}  ", style="not bold")
    if progress.rollout is not None:
        heading.append(f"revision {progress.rollout.revision}  ", style=f"not bold {_QUIET}")
        if progress.rollout.paused:
            heading.append("paused  ", style=f"not bold {_DOUBTFUL}")
    state = progress.state
    colour = {"active": _GOOD, "unknown": _DOUBTFUL}.get(state, _BAD)
    return heading.append("its state is unknown" if state == "unknown" else state, style=f"not bold {colour}")


def _table(progress: Progress) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style=_QUIET, no_wrap=True)
    table.add_column(overflow="fold")
    lines: list[Line] = []
    if progress.quarantine is not None:
        lines.append(("quarantine", Text(f"{progress.quarantine.message}. Remedy: {progress.quarantine.remedy}", _BAD)))
    if "database" not in progress.unanswered:
        lines += _backfill(progress.backfill) if progress.backfill else [("backfill", Text("none", _QUIET))]
        lines += _proof(progress.proof) if progress.proof else [("proof", Text("none: crossfade verify", _DOUBTFUL))]
    if progress.lags is not None:
        lines.append(("lag", _lags(progress.lags)))
    if progress.capture is not None:
        lines += _capture(progress.capture)
    lines += [("no answer", Text(f"{part}: {line}", _BAD)) for part, line in progress.unanswered.items()]
    for name, line in lines:
        table.add_row(f"  {name}", line)
    return table


def _backfill(backfill: Backfill) -> Iterable[Line]:
    state = backfill.state
    line = Text(state.state, _STATES[state.state])
    share = f" ({min(100, 100 * state.rows // state.rows_estimated)} %)" if state.rows_estimated else ""
    line.append(f"  {state.rows:,} of about {state.rows_estimated:,} rows{share}", "default")
    if state.state == "running":
        line.append(f"  {state.rate:,.0f} rows/s", "default")
        if state.eta_s is not None:
            line.append(f"  about {span(state.eta_s)} left", "default")
    total = f"{state.ranges:,}" if state.planned else f"{state.ranges:,} so far"
    line.append(f"  checkpoints {backfill.ranges_done:,} of {total}", "default")
    line.append(f"  moved {span(backfill.moved_s)} ago", _DOUBTFUL if backfill.still else "default")
    yield "backfill", line
    counts = f"{state.points:,} points, {state.handed_over:,} rows handed over to the agents"
    yield "", Text(counts + (f", recall {state.recall:.4f}" if state.recall is not None else ""), _QUIET)
    if backfill.paused:
        yield "", Text("paused by an operator; crossfade migrate resume lets it go on", _DOUBTFUL)
    if state.throttle:
        yield "", Text(f"throttled: {state.throttle}", _DOUBTFUL)
    if state.error:
        yield "", Text(state.error, _BAD)
    if backfill.still:
        yield "", Text("does it still run? crossfade backfill goes on from the checkpoints", _DOUBTFUL)


def _proof(proof: Proof) -> Iterable[Line]:
    state = proof.state
    line = Text(state.verdict, _VERDICTS[state.verdict])
    age = f"{span(proof.age_s)} old" if proof.age_s is not None else "not whole yet"
    line.append(f"  {age}  {state.rows:,} rows, {state.points:,} points  round {state.round}", "default")
    if state.state != "done":
        line.append(f"  {state.state}{', continuous' if state.continuous else ''}", "default")
    yield "proof", line
    if state.differences:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(state.differences.items()))
        oldest = proof.oldest_difference_s
        since = "" if oldest is None else f"; the oldest is {span(oldest)} old"
        yield "", Text(f"not repaired: {kinds}{since}. To repair: crossfade verify --repair", _BAD)
    if state.pending or state.unknown:
        yield "", Text(f"{state.pending:,} pending, {state.unknown:,} unknown", _DOUBTFUL)
    if state.error:
        yield "", Text(state.error, _BAD)


def _lags(lags: Sequence[RoleLag]) -> Text:
    line = Text()
    for number, lag in enumerate(lags):
        line.append("  " if number else "").append(f"{lag.role} ", _QUIET)
        if not lag.messages:
            line.append("0", _GOOD)
            continue
        age = "age unknown" if lag.seconds is None else span(lag.seconds)
        slow = lag.seconds is None or lag.seconds > _SLOW_S
        line.append(f"{lag.messages:,} ({age})", _BAD if slow else _DOUBTFUL)
    return line


def _capture(place: ReplicationPosition) -> Iterable[Line]:
    line = Text(place.state.lower(), _GOOD if place.state == "RUNNING" else _BAD)
    if place.position is not None:
        line.append(f"  at {place.position}", "default")
    if place.behind_bytes is not None:
        line.append(f"  {size(place.behind_bytes)} behind", "default")
    if place.kept_bytes is not None:
        line.append(f"  the database keeps {size(place.kept_bytes)} of its log", "default")
    yield "capture", line
    for wrong in (place.note, place.failure):
        if wrong:
            yield "", Text(wrong, _BAD)
