"""Failpoints: named places where a test kills this process or corrupts a result. Off unless armed.

`CROSSFADE_FAILPOINT=NAME:PASS[-LAST][=ACTION]` arms them, several separated by commas. The worker reads it once, when
it starts. The action runs at the given pass (from 1) through the place, or at every pass from that one up to LAST.
`kill` (the default) ends the process as `kill -9` does. `nan`, `dimension` and `stall` spoil what the embedding engine
computed.

`CROSSFADE_FAILPOINT_FIRED` may name a file. It is created before a kill, and a process that finds it arms nothing.
`CROSSFADE_FAILPOINT_FILE` may name a file whose text replaces the armed failpoints whenever the worker gets SIGUSR1.

Nothing here decides about documents. While nothing is armed, a place costs one check of an empty dictionary.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from connectors.errors import Misconfigured

VARIABLE = "CROSSFADE_FAILPOINT"
FIRED = "CROSSFADE_FAILPOINT_FIRED"
FILE = "CROSSFADE_FAILPOINT_FILE"
PLACES: dict[str, str] = {
    "intake.before_commit": "submissions are in the log, their offsets not committed",
    "capture.before_commit": "captured changes are in the log, their offsets not committed",
    "resolver.before_publish": "entries are folded, nothing is published",
    "resolver.before_ledger": "decisions are published, the ledger has not moved",
    "resolver.before_refresh": "the ledger has moved, what it asks to read again is not appended",
    "resolver.before_commit": "all of a batch is done, its offsets not committed",
    "legacy.before_write": "before the table is written",
    "legacy.after_write": "the table is written, outcomes are not published",
    "legacy.before_commit": "outcomes are published, offsets not committed",
    "embedder.before_publish": "vectors are computed, not passed on",
    "embedder.before_commit": "vectors are passed on, offsets not committed",
    "embedder.engine": "what the engine computed, before it is checked",
    "vector.before_write": "the table may be written, Qdrant is not",
    "vector.after_write": "Qdrant is written, the ledger has not moved",
    "vector.before_outcomes": "the ledger has moved, outcomes are not published",
    "vector.before_commit": "outcomes are published, offsets not committed",
    "backfill.after_rows": "a page of rows is read, nothing is written",
    "backfill.after_insert": "the points of a page are written, they are not looked after",
    "backfill.after_save": "a page is kept as done",
    "verify.after_rows": "a page of rows is read, nothing is compared",
    "verify.after_save": "what is proved so far is kept",
    "verify.after_points": "a page of points is read, its ghosts are not looked at again",
    "verify.before_publish": "differences are confirmed, and their repair is in flight, nothing is published",
    "conductor.before_record": "a command is judged, nothing is published",
    "conductor.before_commit": "the decision is published, the command's offset not committed",
    "adoption.before_epochs": "what was replaced is known, no epoch is raised",
    "adoption.before_offsets": "the epochs are raised, the groups stand where they stood",
    "adoption.before_marks": "the groups are reset, the new identities are not recorded",
    "adoption.before_release": "all of an adoption is done, the quarantine has not ended",
}
ENGINE = "embedder.engine"
STALL_S = 4.0
_FORM = re.compile(r"(?P<name>[a-z_.]+):(?P<first>[1-9]\d*)(-(?P<last>[1-9]\d*))?(=(?P<action>[a-z]+))?")
_SPOILING = ("nan", "dimension", "stall")


@dataclass(slots=True)
class _Armed:
    first: int
    last: int
    action: str
    fired: Path | None
    passed: int = 0

    def due(self) -> bool:
        self.passed += 1
        return self.first <= self.passed <= self.last


_armed: dict[str, _Armed] = {}
_counting = threading.Lock()
log = logging.getLogger("crossfade.failpoints")


def arm(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Arm the failpoints that `CROSSFADE_FAILPOINT` names, and no others. Return their names. Raises Misconfigured."""
    _armed.clear()
    fired = Path(environ[FIRED]) if environ.get(FIRED) else None
    if fired is not None and fired.exists():
        return ()
    armed: dict[str, _Armed] = {}
    for part in filter(None, environ.get(VARIABLE, "").split(",")):
        match = _FORM.fullmatch(part.strip())
        if match is None or match["name"] not in PLACES:
            raise Misconfigured(f"{VARIABLE}: {part!r} is not NAME:PASS[-LAST][=ACTION] with one of {list(PLACES)}")
        action = match["action"] or "kill"
        if action not in (("kill", *_SPOILING) if match["name"] == ENGINE else ("kill",)):
            raise Misconfigured(f"{VARIABLE}: {match['name']} has no action {action!r}")
        first = int(match["first"])
        armed[match["name"]] = _Armed(first, int(match["last"] or first), action, fired)
    _armed.update(armed)
    return tuple(_armed)


def rearm(path: Path) -> None:
    """Arm what the file says. An invalid text disarms all failpoints, so that a test sees nothing fire."""
    try:
        arm({VARIABLE: path.read_text(encoding="utf-8").strip(), FIRED: os.environ.get(FIRED, "")})
    except (OSError, Misconfigured) as error:
        log.warning("nothing is armed: %s", error)


def passing(name: str) -> None:
    """Kill the process here if the failpoint is due."""
    if _armed and (armed := _armed.get(name)) is not None:
        with _counting:
            due = armed.due()
        if due:
            _die(armed)


def spoiled(vectors: Any) -> Any:
    """Return what the engine computed [n, dimension], spoiled if the failpoint is due. Runs on the engine's threads."""
    if not _armed or (armed := _armed.get(ENGINE)) is None:
        return vectors
    with _counting:
        due = armed.due()
    if due and armed.action == "kill":
        _die(armed)
    if due and armed.action == "stall":
        time.sleep(STALL_S)
    elif due and armed.action == "nan":
        return np.full_like(vectors, np.nan)
    elif due and armed.action == "dimension":
        return np.ascontiguousarray(vectors[:, :-1])
    return vectors


def _die(armed: _Armed) -> None:
    if armed.fired is not None:
        armed.fired.touch()
    # SIGKILL, not an exit: no handler, no `finally` and no buffer may run, as in a power cut.
    os.kill(os.getpid(), signal.SIGKILL)
