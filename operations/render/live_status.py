"""Polls collections, once or repeatedly, and shows the result of each poll: a page for people, JSON for programs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import orjson
from rich.console import Console
from rich.live import Live

from migration.observe import Observer
from migration.status import Progress, document_of
from operations.context import print_json
from operations.render.status import page
from schemas.settings import Settings

REFRESH_S = 2.0
_PIPED_WIDTH = 240
Show = Callable[[list[Progress]], None]


async def show(settings: Settings, names: Sequence[str], *, watch: bool, json: bool) -> list[Progress]:
    """Show what is known of the collections and return it. With `watch`, show it every 2 s until cancelled."""
    observer = Observer(settings)
    try:
        with (_lines if watch else _document)() if json else _pages(live=watch) as shown:
            while True:
                found = await observer.look(names)
                shown(found)
                if not watch:
                    return found
                await asyncio.sleep(REFRESH_S)
    finally:
        await observer.close()


def _told(found: list[Progress]) -> dict[str, object]:
    return {"collections": [document_of(progress) for progress in found]}


@contextmanager
def _document() -> Iterator[Show]:
    yield lambda found: print_json(_told(found))


@contextmanager
def _lines() -> Iterator[Show]:
    def line(found: list[Progress]) -> None:
        sys.stdout.buffer.write(orjson.dumps(_told(found), option=orjson.OPT_APPEND_NEWLINE))
        sys.stdout.flush()

    yield line


@contextmanager
def _pages(*, live: bool) -> Iterator[Show]:
    """Show pages one below the other, or in one place if `live` and on a terminal."""
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    if not (live and console.is_terminal):
        yield lambda found: console.print(page(found))
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as place:
        yield lambda found: place.update(page(found), refresh=True)
