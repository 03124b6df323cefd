"""Opens collections that could not be used at the start, each on its own, as soon as it can be used.

A collection whose database is unreachable, refuses the role, or lacks the table is quarantined alone. Its operator only
has to fix the cause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from connectors.errors import CrossfadeError, Misconfigured
from domain.quarantine import Quarantine, Reason
from migration.capture.connectors import prepare_capture
from migration.epochs import epochs_of, reachable_epochs, share
from migration.opener import Opened
from migration.preflight.tables import table_mistakes
from migration.quarantine import Quarantines
from migration.state import CollectionState
from schemas.settings import Settings

Progress = Callable[[str], None]
# The `who` of `Quarantines.away` if a collection could not be opened.
START = "start"
PAUSE_S = 1.0
PAUSE_MAX_S = 30.0
log = logging.getLogger("crossfade.worker")


async def tables_found(settings: Settings, progress: Progress) -> tuple[dict[str, str], dict[str, str]]:
    """Return the collections with mistakes in their tables, and those whose databases cannot be used, with the reasons.

    All are checked concurrently: an unreachable database takes its whole time limit.
    """
    names = list(settings.collections)
    found = await asyncio.gather(*(mistakes_of(settings, name, progress) for name in names), return_exceptions=True)
    mistakes: dict[str, str] = {}
    away: dict[str, str] = {}
    for name, each in zip(names, found, strict=True):
        if isinstance(each, CrossfadeError):
            away[name] = str(each)
        elif isinstance(each, BaseException):
            raise each
        else:
            mistakes |= each
    return mistakes, away


async def mistakes_of(settings: Settings, name: str, progress: Progress) -> dict[str, str]:
    """Return what is wrong with the table of one collection, by the collection's name. Raises as `table_mistakes`."""
    alone = settings.model_copy(update={"collections": {name: settings.collections[name]}})
    return await table_mistakes(alone, progress, apply=False)


async def bring_back(
    settings: Settings,
    opened: Opened,
    quarantines: Quarantines,
    captures: bool,
    changed: Callable[[], None],
    progress: Progress,
) -> None:
    """Open each collection that could not be opened, as soon as it can be. Returns when none is left."""
    left = [name for name in settings.collections if name not in opened.collections]
    await asyncio.gather(
        *(_bring_back(settings, opened, quarantines, name, captures, changed, progress) for name in left)
    )


async def _bring_back(
    settings: Settings,
    opened: Opened,
    quarantines: Quarantines,
    name: str,
    captures: bool,
    changed: Callable[[], None],
    progress: Progress,
) -> None:
    pause_s = PAUSE_S
    while True:
        await asyncio.sleep(pause_s)
        pause_s = min(PAUSE_MAX_S, 2 * pause_s)
        try:
            mistakes = await mistakes_of(settings, name, progress)
            if not mistakes:
                await _open(opened, quarantines, name, captures, progress)
                break
            quarantines.known(Quarantine(name, Reason.TABLE, mistakes[name]))
        except CrossfadeError as error:
            log.warning("collection %s cannot be opened yet: %s", name, error)
        except Exception:  # no error may end the only task that opens the collection
            log.exception("collection %s cannot be opened yet", name)
    changed()


async def _open(opened: Opened, quarantines: Quarantines, name: str, captures: bool, progress: Progress) -> None:
    """Open a collection and prepare its capture. Only then make it known to the agents."""
    if opened.opener is None:
        raise Misconfigured("these collections were opened without what opens another")
    legacy = await opened.opener.database(name)
    ports, quarantine = await opened.opener.collection(name, legacy)
    own = await epochs_of([ports.ledger])
    # Since the worker started, an adoption may have raised the epochs in its databases, and perhaps in this one too.
    epochs = await reachable_epochs(opened.collections, opened.epochs)
    if own.version > epochs.version or own.producer > epochs.producer:
        raise Misconfigured(f"its epochs are {own}, the worker's {epochs}: start the worker again")
    await share(epochs, {name: ports})
    with_it = replace(opened, collections={**opened.collections, name: ports})
    if (had := quarantines.of(name)) is not None and had.reason is Reason.TABLE:
        quarantines.release(name)  # before capture is prepared, so that a quarantine found there is kept
    if captures and quarantine is None:
        await prepare_capture(with_it, quarantines, progress, only=(name,))
    quarantines.back(name, START)
    if (found := quarantines.of(name)) is not None and not found.passes:
        # Like every quarantine, recorded before it takes effect. `quarantines` could not record it, because the
        # collection was not among its collections yet.
        await CollectionState(ports.ledger, name).set_reason(found.reason)
    # Its phase may have changed since it was read.
    opened.collections[name] = replace(with_it.collections[name], moved_to=opened.opener.states.phase(name))
    if quarantine is not None:
        quarantines.known(quarantine)
    progress(f"{name} is opened")


def stop_those(quarantines: Quarantines, mistakes: dict[str, str], away: dict[str, str]) -> None:
    """Quarantine the collections that cannot be opened, with the reasons."""
    for name, why in mistakes.items():
        quarantines.known(Quarantine(name, Reason.TABLE, why))
    for name, why in away.items():
        quarantines.away(name, START, why)


def usable(settings: Settings, *without: dict[str, str]) -> Sequence[str]:
    """Return the collections that are in none of the findings."""
    return [name for name in settings.collections if not any(name in each for each in without)]
