"""Fixtures of the tests of `verify`."""

from __future__ import annotations

import pytest

from tests.unit.migration.verify.place import NAME, Place


@pytest.fixture
async def place() -> Place:
    """Ten documents that are the same in both stores."""
    made = Place()
    await made.vectors.prepare(NAME, 4)
    for number in range(10):
        await made.put(f"d{number}", chunks=1 + number % 3)
    return made
