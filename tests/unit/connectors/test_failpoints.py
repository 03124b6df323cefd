"""A failpoint does what it was armed for, at its pass and at no other. If it is not armed, it does nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from connectors.errors import Misconfigured
from connectors.failpoints import ENGINE, FIRED, PLACES, VARIABLE, arm, passing, rearm, spoiled
from tests.test_rooms import MODULES
from topics.roles import ROLE_NAMES

ROOT = Path(__file__).parents[3]
PASSES_THREE_TIMES = """
import os
from connectors.failpoints import arm, passing
arm(os.environ)
for number in (1, 2, 3):
    print(number, flush=True)
    passing("legacy.before_write")
"""


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    arm({})


def run(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PASSES_THREE_TIMES]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environ, capture_output=True, text=True, check=False)


def test_the_process_dies_at_the_pass_and_not_before() -> None:
    done = run({VARIABLE: "legacy.before_write:2"})
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["1", "2"])


def test_a_process_that_finds_the_mark_of_a_kill_is_not_armed(tmp_path: Path) -> None:
    environ = {VARIABLE: "legacy.before_write:1", FIRED: str(tmp_path / "fired")}
    assert run(environ).returncode == -signal.SIGKILL
    again = run(environ)
    assert (again.returncode, again.stdout.split()) == (0, ["1", "2", "3"])


def test_nothing_happens_unless_armed() -> None:
    arm({})
    vectors = np.ones((2, 3), dtype=np.float32)
    for name in PLACES:
        passing(name)
    assert spoiled(vectors) is vectors


def test_the_engine_is_spoiled_from_the_first_pass_to_the_last() -> None:
    arm({VARIABLE: f"{ENGINE}:2-3=nan"})
    vectors = np.ones((2, 3), dtype=np.float32)
    seen = [bool(np.isnan(spoiled(vectors)).all()) for _ in range(4)]
    assert seen == [False, True, True, False]


def test_the_engine_answers_with_another_dimension() -> None:
    arm({VARIABLE: f"{ENGINE}:1=dimension"})
    assert spoiled(np.ones((2, 3), dtype=np.float32)).shape == (2, 2)


@pytest.mark.parametrize(
    "wrong", ["legacy.before_wriet:1", "legacy.before_write", "legacy.before_write:0", "legacy.before_write:1=nan"]
)
def test_a_failpoint_that_could_never_fire_is_refused(wrong: str) -> None:
    with pytest.raises(Misconfigured):
        arm({VARIABLE: wrong})


def test_a_file_takes_the_place_of_what_is_armed(tmp_path: Path) -> None:
    arm({VARIABLE: f"{ENGINE}:1-9=nan"})
    file = tmp_path / "armed"
    file.write_text(f"{ENGINE}:1=dimension\n")
    rearm(file)
    assert spoiled(np.ones((2, 3), dtype=np.float32)).shape == (2, 2)
    file.write_text("")
    rearm(file)
    vectors = np.ones((2, 3), dtype=np.float32)
    assert spoiled(vectors) is vectors


def test_every_place_is_passed_somewhere() -> None:
    source = "".join(path.read_text() for path in MODULES)
    named = set(re.findall(r'passing\("([a-z_.]+)"\)', source)) | {f"{role}.before_commit" for role in ROLE_NAMES}
    named |= {ENGINE}
    assert set(PLACES) <= named
    assert named - set(PLACES) <= {"query.before_commit"}
