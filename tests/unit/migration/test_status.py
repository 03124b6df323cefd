"""What `migrate status` concludes from stored states: figures, ages and problems, and the page that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from rich.console import Console

from domain.quarantine import Quarantine, Reason
from migration.capture.positions import ReplicationPosition
from migration.lag import RoleLag
from migration.status import Progress, backfill_of, document_of, proof_of
from operations.render.status import page, size, span
from schemas.tasks import CONTROL, HEADER, BackfillState, Control, ProofState, RangeState

NOW_MS = 10_000_000
BACKFILL = BackfillState(
    started_at_ms=NOW_MS - 60_000,
    updated_at_ms=NOW_MS - 1_500,
    model="m",
    range_rows=2000,
    rows_estimated=1_000_000,
    rows=250_000,
    points=249_000,
    handed_over=1_000,
    recall=0.987,
    ranges=500,
    planned=True,
    rate=20_000,
    eta_s=37.5,
)
PROOF = ProofState(
    state="done",
    verdict="different",
    started_at_ms=NOW_MS - 50_000,
    updated_at_ms=NOW_MS - 3_000,
    oldest_at_ms=NOW_MS - 125_000,
    rows=1_000_000,
    differences={"missing": 2, "stale": 1},
    oldest_difference_at_ms=NOW_MS - 5_000,
    pending=4,
    unknown=5,
)


def parts(header: Any, **ranges: bool) -> dict[int, bytes]:
    found = {HEADER: header.model_dump_json().encode()}
    for number, done in enumerate(ranges.values(), start=1):
        found[number] = RangeState(after=None, upto=None, done=done).model_dump_json().encode()
    return found


def shown(progress: Progress) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115 - closed with the test
    console.print(page([progress]))
    return console.export_text()


def test_a_task_that_never_ran_is_none() -> None:
    control = {CONTROL: Control(paused=True).model_dump_json().encode()}
    assert backfill_of({}, NOW_MS) is None
    assert backfill_of(control, NOW_MS) is None
    assert proof_of({}, NOW_MS) is None


def test_rows_left_checkpoints_and_the_last_move_follow_from_the_parts() -> None:
    found = backfill_of(parts(BACKFILL, a=True, b=False, c=True), NOW_MS)
    assert found is not None
    assert (found.rows_left, found.ranges_done, found.moved_s, found.paused) == (750_000, 2, 1.5, False)


@pytest.mark.parametrize(
    ("changes", "left"),
    [({"state": "done"}, 0), ({"rows_estimated": 0}, None), ({"rows": 1_000_001}, 0)],
)
def test_rows_left_are_never_made_up(changes: Mapping[str, Any], left: int | None) -> None:
    found = backfill_of(parts(BACKFILL.model_copy(update=dict(changes))), NOW_MS)
    assert found is not None
    assert found.rows_left == left


def test_a_pause_that_was_asked_for_is_known() -> None:
    asked = parts(BACKFILL) | {CONTROL: Control(paused=True).model_dump_json().encode()}
    found = backfill_of(asked, NOW_MS)
    assert found is not None
    assert found.paused
    assert "crossfade migrate resume" in shown(Progress("docs", "dual_write", backfill=found))


def test_a_backfill_that_does_not_move_is_doubted() -> None:
    found = backfill_of(parts(BACKFILL.model_copy(update={"updated_at_ms": NOW_MS - 61_000})), NOW_MS)
    assert found is not None
    assert found.still
    assert "does it still run?" in shown(Progress("docs", "dual_write", backfill=found))


def test_the_proof_is_as_old_as_its_oldest_range() -> None:
    found = proof_of(parts(PROOF), NOW_MS)
    assert found is not None
    assert (found.age_s, found.oldest_difference_s, found.moved_s) == (125.0, 5.0, 3.0)
    never = proof_of(parts(PROOF.model_copy(update={"oldest_at_ms": None})), NOW_MS)
    assert never is not None
    assert never.age_s is None
    assert "not whole yet" in shown(Progress("docs", "dual_write", proof=never))


@pytest.mark.parametrize(
    ("progress", "wrong"),
    [
        (Progress("docs", "dual_write"), False),
        (Progress("docs", "dual_write", quarantine=Quarantine("docs", Reason.UNREADABLE)), True),
        (Progress("docs", "dual_write", backfill=backfill_of(parts(BACKFILL), NOW_MS)), False),
        (
            Progress(
                "docs",
                "dual_write",
                backfill=backfill_of(parts(BACKFILL.model_copy(update={"state": "failed"})), NOW_MS),
            ),
            True,
        ),
        (Progress("docs", "dual_write", proof=proof_of(parts(PROOF), NOW_MS)), True),
        (
            Progress(
                "docs",
                "dual_write",
                proof=proof_of(parts(PROOF.model_copy(update={"verdict": "equal", "differences": {}})), NOW_MS),
            ),
            False,
        ),
    ],
)
def test_what_needs_an_operator_is_wrong(progress: Progress, wrong: bool) -> None:
    assert progress.wrong is wrong


WHOLE = Progress(
    "docs",
    "dual_write",
    quarantine=Quarantine("docs", Reason.CAPTURE_LOST),
    backfill=backfill_of(
        parts(BACKFILL.model_copy(update={"throttle": "the vector role is 40 s behind"}), a=True), NOW_MS
    ),
    proof=proof_of(parts(PROOF), NOW_MS),
    lags=(
        RoleLag("intake", "in", 0, 0.0),
        RoleLag("vector", "out", 1234, 75.0),
        RoleLag("legacy", "mid", 3, None),
    ),
    capture=ReplicationPosition(
        "c", "FAILED", "[a] trace", "0/10", "0/20", 16, 3 * 1024**2, "the replication slot is lost"
    ),
    unanswered={"kafka": "nobody [there]"},
)


def test_the_document_has_everything_and_is_json() -> None:
    document = orjson.loads(orjson.dumps(document_of(WHOLE)))
    assert document["stopped"]["mend"] == "crossfade recapture docs"
    assert (document["backfill"]["rows_left"], document["backfill"]["ranges_done"]) == (750_000, 1)
    assert document["backfill"]["throttle"] == "the vector role is 40 s behind"
    assert (document["proof"]["age_s"], document["proof"]["verdict"]) == (125.0, "different")
    assert document["proof"]["differences"] == {"missing": 2, "stale": 1}
    assert document["lag"][1] == {"role": "vector", "topic": "out", "messages": 1234, "seconds": 75.0}
    assert document["capture"]["kept_bytes"] == 3 * 1024**2
    assert document["unanswered"] == {"kafka": "nobody [there]"}


@pytest.mark.parametrize(
    "expected",
    [
        "docs  dual_write  quarantined",
        "capture lost its position in the database's log, so changes may be missing. Remedy: crossfade recapture docs",
        "running  250,000 of about 1,000,000 rows (25 %)  20,000 rows/s  about 38 s left  checkpoints 1 of 500",
        "moved 1.5 s ago",
        "249,000 points, 1,000 rows handed over to the agents, recall 0.9870",
        "throttled: the vector role is 40 s behind",
        "different  2 min 5 s old  1,000,000 rows",
        "not repaired: 2 missing, 1 stale; the oldest is 5.0 s old. To repair: crossfade verify --repair",
        "4 pending, 5 unknown",
        "intake 0  vector 1,234 (1 min 15 s)  legacy 3 (age unknown)",
        "failed  at 0/10  16 B behind  the database keeps 3.0 MiB of its log",
        "the replication slot is lost",
        "[a] trace",
        "kafka: nobody [there]",
    ],
)
def test_the_page_says(expected: str) -> None:
    assert expected in shown(WHOLE)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90_000, "1 d 1 h"),
        (10**8, "1157 d 9 h"),
    ],
)
def test_a_span_has_the_units_that_matter(seconds: float, expected: str) -> None:
    assert span(seconds) == expected


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 1024**4, "5.0 TiB")]
)
def test_a_size_has_the_unit_that_fits(number: int, expected: str) -> None:
    assert size(number) == expected


@pytest.mark.parametrize(
    ("connector", "state"),
    [
        ("RUNNING", "active"),
        ("RESTARTING", "active"),
        ("FAILED", "not captured"),
        ("PAUSED", "not captured"),
        ("STOPPED", "not captured"),
        ("MISSING", "not captured"),
    ],
)
def test_a_collection_whose_connector_does_not_run_is_not_active(connector: str, state: str) -> None:
    place = ReplicationPosition("c", connector, None, None, None, None, None)
    progress = Progress("articles", "dual_write", capture=place)
    before = {"active": "in service"}.get(state, state)  # the word that programs expect in the JSON
    assert (progress.state, progress.wrong, document_of(progress)["state"]) == (state, state != "active", before)
    assert f"articles  dual_write  {state}" in shown(progress)
