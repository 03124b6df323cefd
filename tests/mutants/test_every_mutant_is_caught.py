"""Tests that the simulation catches every mutant, and that a mutant is switched off after its run."""

from __future__ import annotations

from importlib import import_module

import pytest

from tests.mutants.catch import catch, catch_all
from tests.mutants.mutants import MUTANTS, Mutant


@pytest.mark.timeout(600)
def test_every_known_wrong_version_is_caught() -> None:
    missed = [caught.name for caught in catch_all() if caught.seed is None]
    assert missed == []
    assert len(MUTANTS) >= 10


def test_what_is_right_is_not_caught_and_a_mutant_ends_with_its_run() -> None:
    assert catch(Mutant("none", "nothing", {}), 5).seed is None
    before = import_module("domain.fold").is_echo
    assert catch(next(m for m in MUTANTS if m.name == "echo not recognised")).seed is not None
    assert import_module("domain.fold").is_echo is before
