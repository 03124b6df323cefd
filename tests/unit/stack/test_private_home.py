"""An existing folder holds passwords only once no other user may enter it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from connectors.errors import TaskFailed
from stack.layout import Layout


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("before", [0o755, 0o777, 0o750, 0o705, 0o700])
def test_folders_that_were_there_before_are_closed(tmp_path: Path, before: int) -> None:
    home = tmp_path / "home"
    for folder in (home, home / "data", home / "logs", home / "run", home / "etc"):
        folder.mkdir()
        folder.chmod(before)
    layout = Layout(home)
    layout.state_file.write_text("{}")
    layout.state_file.chmod(0o644)
    layout.create()
    assert {mode(folder) for folder in (home, *home.iterdir()) if folder.is_dir()} == {0o700}
    assert mode(layout.state_file) == 0o600


def test_a_folder_of_another_user_that_others_may_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    with pytest.raises(TaskFailed, match="belongs to another user"):
        Layout(tmp_path / "home").create()
