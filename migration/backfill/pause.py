"""Pause and resume of a running backfill: a flag in the collection's task store, which it reads between pages."""

from __future__ import annotations

from connectors.sql.databases import open_legacy
from schemas.settings import Collection
from schemas.tasks import BACKFILL, CONTROL, HEADER, BackfillState, Control


async def set_paused(name: str, collection: Collection, dsn: str, *, paused: bool) -> BackfillState | None:
    """Request a pause of the collection's backfill, or the end of it; return the backfill's state, None without one.

    A backfill that begins later reads the flag, too. Raises as `open_legacy`, StoreUnavailable.
    """
    legacy = await open_legacy(name, collection, dsn)
    try:
        await legacy.prepare()
        await legacy.tasks.save(BACKFILL, {CONTROL: Control(paused=paused).model_dump_json().encode()})
        parts = await legacy.tasks.read(BACKFILL, HEADER)
    finally:
        await legacy.close()
    try:
        return BackfillState.model_validate_json(parts[HEADER]) if HEADER in parts else None
    except ValueError:  # the next backfill starts over
        return None
