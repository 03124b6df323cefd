"""Optimising a collection of the embedded engine beside its use: copy, build in a child process, catch up, replace.

The engine holds Python's global lock while it optimises (14 s for 20,000 points of 384 floats on two cores), and a
process that serves questions cannot stand still so long. So a child process optimises a copy as the next generation.
Run as a module, this file is that child process: `python -m connectors.qdrant.engine.optimiser FOLDER`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from connectors.qdrant.engine.files import Description, copy_folder, describe, generation_folder
from connectors.qdrant.engine.shard import Shard, load

log = logging.getLogger(__name__)

CHILD_LIMIT_S = 3600.0
CATCH_UP_ROUNDS = 50
POINTS_A_TURN = 64
LAST_POINTS = 256
_NICENESS = 10


class Optimisation:
    """One run over one collection. `writing` is held while files are copied: searches go on, writes wait.

    `put` is called with the new generation, in the same turn in which the old one is closed.
    """

    def __init__(self, shard: Shard, writing: asyncio.Lock, put: Callable[[Shard], None]) -> None:
        self._old = shard
        self._put = put
        self._writing = writing
        generation = shard.description.generation + 1
        self._description = Description(shard.description.dimension, generation)
        self._path = generation_folder(shard.folder, generation)
        self._replaced = False

    async def run(self) -> bool:
        """Put a new generation, with every point of the old one, in its place; False, and all as it was, on failure."""
        started = time.monotonic()
        new: Shard | None = None
        try:
            await self._copy()
            if not await self._build():
                return False
            name = self._old.collection
            new = Shard(name, self._old.folder, self._description, load(name, self._path))
            new.unoptimised = 0
            new.index_as(self._old)
            pending = await self._catch_up(new)
            if len(pending) > LAST_POINTS:
                log.warning("%s: writes outran the optimised copy, which is dropped", self._old.collection)
                return False
            self._replace(new, pending)
        finally:
            self._old.touched = None
            if not self._replaced:
                if new is not None:
                    new.close()
                await asyncio.to_thread(shutil.rmtree, self._path, ignore_errors=True)
        await asyncio.to_thread(shutil.rmtree, self._old_path(), ignore_errors=True)
        log.info("%s optimised in %.1f s", self._old.collection, time.monotonic() - started)
        return True

    def _old_path(self) -> Path:
        return generation_folder(self._old.folder, self._old.description.generation)

    async def _copy(self) -> None:
        async with self._writing:
            self._old.flush()
            self._old.touched = set()
            shutil.rmtree(self._path, ignore_errors=True)
            await asyncio.to_thread(copy_folder, self._old_path(), self._path)

    async def _build(self) -> bool:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "connectors.qdrant.engine.optimiser",
            str(self._path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(CHILD_LIMIT_S):
                _, errors = await child.communicate()
        except TimeoutError:
            errors = b"out of time"
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode:
            log.warning("%s could not be optimised: %s", self._old.collection, errors.decode(errors="replace")[-500:])
        return child.returncode == 0

    async def _catch_up(self, new: Shard) -> set[str]:
        """Take over what was written since the copy, round by round; return the few that are left, or too many."""
        pending: set[str] = set()
        for _ in range(CATCH_UP_ROUNDS):
            pending |= self._old.touched or set()
            self._old.touched = set()
            if len(pending) <= LAST_POINTS:
                break
            names = sorted(pending)
            pending = set()
            for start in range(0, len(names), POINTS_A_TURN):
                new.adopt(self._old, names[start : start + POINTS_A_TURN])
                await asyncio.sleep(0)
            new.flush()
        return pending

    def _replace(self, new: Shard, pending: set[str]) -> None:
        """Take over the last points and change places, without a turn for anyone else in between."""
        new.adopt(self._old, sorted(pending | (self._old.touched or set())))
        new.index_as(self._old)
        new.flush()
        describe(new.folder, new.description)
        self._replaced = True
        new.journal, self._old.journal = self._old.journal, None
        self._put(new)
        self._old.close()


def main(folder: Path) -> None:
    """Optimise one generation that nobody else has open."""
    os.nice(_NICENESS)
    engine = load(folder.parent.name, folder)
    engine.optimize()
    engine.flush()
    engine.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
