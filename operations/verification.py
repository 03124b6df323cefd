"""A run of the difference finder from settings to result: opens one collection's stores, verifies, and closes them.

What is compared is in `operations.verifying`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agents.assembly import open_all
from agents.batch import Surroundings
from agents.worker import now_ms
from connectors.telemetry import Telemetry
from operations.verifying import Bounds, Progress, Verification, verify
from schemas.settings import Settings


def _nothing(_: object) -> None:
    """Leave progress untold."""


async def verify_collection(
    settings: Settings,
    home: Path,
    name: str,
    bounds: Bounds,
    *,
    repair: bool,
    progress: Callable[[str], None] = _nothing,
    counted: Progress = _nothing,
) -> Verification:
    """Verify one collection; `counted` gets the number of documents read so far.

    Raises as `open_all` and `verify` do.
    """
    only = settings.model_copy(update={"collections": {name: settings.collections[name]}})
    async with AsyncExitStack() as resources:
        opened = await open_all(only, home, progress)
        resources.push_async_callback(opened.close)
        return await verify(
            opened.collections[name],
            bus=opened.bus,
            around=Surroundings(now_ms, opened.epoch, Telemetry(tracing=False)),
            bounds=bounds,
            repair=repair,
            progress=counted,
        )


def document_of(run: Verification, seconds: float) -> dict[str, Any]:
    """Return a verification as one JSON document."""
    return {
        "collection": run.collection,
        "legacy_documents": run.legacy_documents,
        "vector_documents": run.vector_documents,
        "differences": run.found,
        "settled": run.settled,
        "repaired": run.repaired,
        "seconds": round(seconds, 3),
        "listed": [asdict(difference) for difference in run.differences],
    }
