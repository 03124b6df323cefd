"""Watches that the columns of each table are those that it was opened with, and opens it again where they are not.

A type or a collation may change under a running worker, and a label may come to an enumeration: statements and
canonical forms are made of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from connectors.errors import CrossfadeError, Misconfigured
from migration.collection import Opened, Opener
from migration.quarantine import LAYOUT, Quarantines
from migration.watch.databases import mistakes_of

log = logging.getLogger("crossfade.collections")
LAYOUT_S = 3.0


async def watch_layouts(opened: Opened, quarantines: Quarantines, changed: Callable[[], None]) -> None:
    """Watch for as long as the worker runs. Raises Misconfigured where nothing opens a collection again."""
    if opened.opener is None:
        raise Misconfigured("these collections were opened without what opens another")
    while True:
        await asyncio.sleep(LAYOUT_S)
        names = list(opened.collections)
        # Together: one that is away takes its whole time limit.
        if any(await asyncio.gather(*(_look(opened, opened.opener, quarantines, name) for name in names))):
            changed()


async def _look(opened: Opened, opener: Opener, quarantines: Quarantines, name: str) -> bool:
    """Open a collection again where its columns changed; say whether that, or why it cannot be, is news."""
    try:
        altered = await opened.collections[name].table.altered()
    except CrossfadeError:
        return False  # who uses it says so
    try:
        if altered is not None:
            await _open_again(opened, opener, name)
            log.warning("the table of %s was opened again: %s; see: crossfade verify %s", name, altered, name)
    except CrossfadeError as error:
        quarantines.away(name, LAYOUT, f"{altered}: {error}")
    else:
        quarantines.back(name, LAYOUT)
    return altered is not None


async def _open_again(opened: Opened, opener: Opener, name: str) -> None:
    """Put a collection as it is now in the place of the one that was opened before, whose users begin again."""
    if mistakes := await mistakes_of(opened.settings, name, log.info):
        raise Misconfigured(mistakes[name])
    legacy = await opener.database(name)
    try:
        ports, _ = await opener.collection(name, legacy)
    except BaseException:
        await legacy.close()
        raise
    before = opened.collections[name]
    opened.collections[name] = replace(ports, settings=before.settings, capture=before.capture)
    await before.table.close()
