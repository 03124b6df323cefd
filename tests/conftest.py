"""Fixtures of the whole suite. The local stack is started once, by the first test that needs it."""

from __future__ import annotations

import pytest

from connectors.gc_tuning import collect_rarely

pytest_plugins = ["tests.stack_fixture"]


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the stack, so that `make test` can run the others in a process beside it."""
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.stack)


def pytest_collection_finish() -> None:
    """Spare what makes many values: the collector would go through thousands of modules and tests again and again."""
    collect_rarely()
