"""Watches the columns of each table, and opens the table again if they differ from those that it was opened with.

A type or a collation may change under a running worker, and an enumeration may get a new label. Statements and
canonical forms are made from them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from connectors.errors import CrossfadeError, Misconfigured
from migration.opener import Opened, Opener
from migration.quarantine import LAYOUT, Quarantines
from migration.watch.databases import mistakes_of

log = logging.getLogger("crossfade.collections")
LAYOUT_S = 3.0


async def watch_layouts(opened: Opened, quarantines: Quarantines, changed: Callable[[], None]) -> None:
    """Watch for as long as the worker runs. Raises Misconfigured if there is no opener to open a collection again."""
    if opened.opener is None:
        raise Misconfigured("these collections were opened without what opens another")
    while True:
        await asyncio.sleep(LAYOUT_S)
        names = list(opened.collections)
        # Concurrently: an unreachable database takes its whole time limit.
        if any(await asyncio.gather(*(_look(opened, opened.opener, quarantines, name) for name in names))):
            changed()


async def _look(opened: Opened, opener: Opener, quarantines: Quarantines, name: str) -> bool:
    """Open a collection again if its columns changed; say whether they did, even if it could not be opened."""
    try:
        altered = await opened.collections[name].table.altered()
    except CrossfadeError:
        return False  # the user of the table reports the error
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
    """Replace an open collection with one that has the current columns. Its users start again with the new one."""
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
