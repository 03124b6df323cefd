"""The local stack as a whole: its parts, their dependencies, one `up` at a time. Servers are defined elsewhere."""

from __future__ import annotations

import asyncio
import fcntl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from connectors.errors import NotReady, ProcessFailed, TaskFailed
from stack.broker import Broker
from stack.connect import Connect
from stack.engine import Engine
from stack.layout import (
    PART_NAMES,
    STOP_ORDER,
    Layout,
    PartName,
    StackAddresses,
    StackState,
    new_state,
    read_state,
    write_state,
)
from stack.mariadb import MariaDB, ensure_mariadb, find_mariadb
from stack.part import Part, PartStatus
from stack.postgres import Postgres

ALL_PARTS: frozenset[PartName] = frozenset(PART_NAMES)
_CLASSES: dict[PartName, type[Part]] = {
    "kafka": Broker,
    "connect": Connect,
    "postgres": Postgres,
    "mariadb": MariaDB,
    "qdrant": Engine,
}
# A part is started once the parts that it needs are healthy.
NEEDS: dict[PartName, tuple[PartName, ...]] = {"connect": ("kafka",)}
_LOCK_BOUND_S = 300.0
# The detail of a part that no `up` has started in this home yet.
NEVER_STARTED = "never started"

__all__ = ["ALL_PARTS", "NEEDS", "NEVER_STARTED", "LocalStack", "PartStatus"]


class LocalStack:
    """The stack in one home folder.

    `parts` are what `up` starts, together with what they need. MariaDB comes from the system: if it is missing, it is
    left out with a message, unless `install_mariadb` allows its installation and that succeeds.
    """

    def __init__(self, home: Path, parts: frozenset[PartName] = ALL_PARTS, *, install_mariadb: bool = False) -> None:
        self.home = home.absolute()
        self._layout = Layout(self.home)
        self._parts = _with_needs(parts)
        self._install_mariadb = install_mariadb

    async def up(self, progress: Callable[[str], None]) -> StackAddresses:
        """Start what does not run yet, and wait until every part is healthy. Raises ProcessFailed."""
        self._layout.create()
        async with self._locked(progress):
            names = await self._available(progress)
            state = read_state(self.home) or new_state()
            state = state.model_copy(update={"parts": state.parts | names})
            write_state(self.home, state)
            await self._start_all({name: self._make(name, state) for name in names}, progress)
            return state.addresses()

    async def down(self) -> None:
        """End the parts in order, those that use others first. Does nothing if nothing runs."""
        state = read_state(self.home)
        if state is None:
            return
        async with self._locked(lambda _: None):
            # A part cannot run without the parts that it needs, so it is ended with them.
            names = {name for name in STOP_ORDER if self._parts & {name, *NEEDS.get(name, ())}}
            for name in STOP_ORDER:
                if name in names:
                    await self._make(name, state).stop()

    async def status(self) -> tuple[PartStatus, ...]:
        """Return the status of each part, including those that were never started."""
        state = read_state(self.home)
        names = [name for name in PART_NAMES if name in self._parts]

        async def one(name: PartName) -> PartStatus:
            if state is None or name not in state.parts:
                return PartStatus(name, "stopped", None, None, NEVER_STARTED, None)
            return await self._make(name, state).status(getattr(state.addresses(), name, None))

        return tuple(await asyncio.gather(*(one(name) for name in names)))

    def part(self, name: PartName) -> Part:
        """Return one part, to see its pid, to kill it or to start it alone. Raises NotReady before the first `up`."""
        state = read_state(self.home)
        if state is None:
            raise NotReady(f"The local stack in {self.home} was never started.", "Run: crossfade up")
        return self._make(name, state)

    def _make(self, name: PartName, state: StackState) -> Part:
        return _CLASSES[name](self._layout, state)

    async def _available(self, progress: Callable[[str], None]) -> frozenset[PartName]:
        if "mariadb" not in self._parts:
            return self._parts
        if self._install_mariadb:
            found = await asyncio.to_thread(ensure_mariadb, progress)
        else:
            found = find_mariadb()
            if found is None:
                progress("mariadb is not installed on this system and is left out")
        return self._parts if found is not None else self._parts - {"mariadb"}

    async def _start_all(self, parts: dict[PartName, Part], progress: Callable[[str], None]) -> None:
        ready = {name: asyncio.Event() for name in parts}

        async def start(name: PartName) -> None:
            for needed in NEEDS.get(name, ()):
                await ready[needed].wait()
            await parts[name].start(progress)
            ready[name].set()

        try:
            async with asyncio.TaskGroup() as group:
                for name in parts:
                    group.create_task(start(name))
        except* TaskFailed as errors:
            # The first failure is the most informative; it cancelled the tasks of the others.
            raise errors.exceptions[0] from None

    @asynccontextmanager
    async def _locked(self, progress: Callable[[str], None]) -> AsyncIterator[None]:
        """Keep other commands from starting or ending parts of this home at the same time."""
        with self._layout.lock_file.open("w") as lock:
            deadline = time.monotonic() + _LOCK_BOUND_S
            reported = False
            while True:
                try:
                    fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise ProcessFailed(
                            f"Another command has been starting or ending the stack in {self.home} for too long."
                        ) from None
                if not reported:
                    progress("another command is starting or ending this stack; waiting for it")
                    reported = True
                await asyncio.sleep(0.1)
            yield


def _with_needs(parts: frozenset[PartName]) -> frozenset[PartName]:
    unknown = parts - ALL_PARTS
    if unknown:
        raise NotReady(f"There is no part {', '.join(sorted(unknown))}.", f"Parts: {', '.join(PART_NAMES)}.")
    return parts.union(*(NEEDS.get(name, ()) for name in parts)) if parts else parts
