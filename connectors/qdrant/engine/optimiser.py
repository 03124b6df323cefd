"""Optimisation of an embedded collection while it is in use: copy, build in a child process, catch up, replace.

The engine holds Python's global lock while it optimises (14 s for 20,000 points of 384 floats on two cores). A process
that answers questions cannot stall for so long. So a child process optimises a copy, which becomes the next generation.
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
    """One optimisation of one collection. While files are copied, `writing` is held: searches continue, writes wait.

    `put` is called with the new generation, in the same turn of the event loop in which the old one is closed.
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
        """Replace the old generation with a new one that has all of its points.

        Returns False on failure, and leaves the old generation as it was.
        """
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
        """Take over the points written since the copy, in rounds. Return the ids that are left: few, or too many."""
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
        """Take over the last points and switch generations, all in one turn of the event loop."""
        new.adopt(self._old, sorted(pending | (self._old.touched or set())))
        new.index_as(self._old)
        new.flush()
        describe(new.folder, new.description)
        self._replaced = True
        new.journal, self._old.journal = self._old.journal, None
        self._put(new)
        self._old.close()


def main(folder: Path) -> None:
    """Optimise one generation that no other process has open."""
    os.nice(_NICENESS)
    engine = load(folder.parent.name, folder)
    engine.optimize()
    engine.flush()
    engine.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
