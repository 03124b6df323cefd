"""What `crossfade verify` prints: a screenful of differences, and how many there are."""

from __future__ import annotations

import pytest

from domain.comparison import Difference, Disagreement
from migration.verify.result import Verification
from migration.verify.tally import count
from operations.commands.verify import show


@pytest.mark.parametrize(("differences", "more"), [(50, None), (60, "and 10 more"), (1200, "and 1150 more")])
def test_a_terminal_gets_fifty_differences_and_the_number_of_the_others(
    capsys: pytest.CaptureFixture[str], differences: int, more: str | None
) -> None:
    found = Verification("docs")
    for number in range(differences):
        count(found, Difference(f"row-{number}", "missing", Disagreement.NO_POINT, 1, None), listed=1000)
    show(found)
    printed = capsys.readouterr().out
    assert printed.count("missing") == 50
    assert ("more (" in printed) == (more is not None)
    assert (more or "") in printed
    assert f"{differences} differences" in printed
