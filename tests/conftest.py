"""Hooks and fixtures of the whole suite. The first test that needs the local stack starts it, once for all."""

from __future__ import annotations

import pytest

from connectors.gc_tuning import collect_rarely

pytest_plugins = ["tests.stack_fixture"]


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need the stack, so that `make test` can run the others in a concurrent process."""
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.stack)


def pytest_collection_finish() -> None:
    """Collect garbage rarely: each collection would traverse thousands of modules and tests again."""
    collect_rarely()
