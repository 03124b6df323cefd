"""Fixtures of the whole suite. The local stack is started once, by the first test that needs it."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.stack_fixture"]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in several processes, all that need the stack run in one, and the others module by module."""
    for item in items:
        needs_stack = item.get_closest_marker("stack") or "stack" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("stack" if needs_stack else str(item.path)))
