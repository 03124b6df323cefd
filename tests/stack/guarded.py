"""Captures collections of a shop while a worker's capture guard runs. No worker is started."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from connectors.kafka.connect import ConnectClient
from migration.capture.connectors import groups, prepare_capture
from migration.opener import Opened
from migration.quarantine import Quarantines
from migration.watch import capture as capture_guard
from migration.watch.capture import guard_capture
from tests.flow.site import eventually
from tests.stack.shop import Shop
from tests.stack.test_captured_alone import quarantines_of


@asynccontextmanager
async def guarded(shop: Shop, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Quarantines]:
    """Capture and guard the collections of one connector, with short intervals. Yield once its snapshot is read."""
    monkeypatch.setattr(capture_guard, "GUARD_S", 0.5)
    monkeypatch.setattr(capture_guard, "MODEL_S", 1.0)
    quarantines = quarantines_of(opened)
    await prepare_capture(opened, quarantines, lambda _: None)
    (group,) = groups(opened.collections)

    async def begun() -> bool:
        async with ConnectClient(shop.stack.connect) as client:
            return await client.has_snapshot(group.connector)

    await eventually(begun, "the snapshot is read")
    guard = asyncio.create_task(guard_capture(opened, quarantines, lambda: None))
    try:
        yield quarantines
    finally:
        guard.cancel()
        await asyncio.gather(guard, return_exceptions=True)
