"""What all parts of the local stack have in common: start until healthy, status, stop. Nothing specific to a server."""

from __future__ import annotations

import asyncio
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from connectors.errors import ProcessFailed
from stack.layout import LOOPBACK, Layout, PartName, StackState, port_is_free
from stack.processes import Daemon

Progress = Callable[[str], None]

START_BOUND_S = 120.0
_POLL_S = 0.1
_PORT_BOUND_S = 5.0


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One line of `crossfade status`; `resident_mib` counts the part's child processes too."""

    name: PartName
    state: Literal["running", "stopped", "unhealthy"]
    pid: int | None
    address: str | None
    detail: str
    resident_mib: float | None


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start the process of a part."""

    command: Sequence[str]
    cwd: Path
    environment: Mapping[str, str] | None = None


class Part(ABC):
    """A server of the stack, run as one daemon."""

    name: PartName
    stop_signal: signal.Signals = signal.SIGTERM
    stop_bound_s: float = 30.0

    def __init__(self, layout: Layout, state: StackState) -> None:
        self.layout = layout
        self.state = state
        self.daemon = Daemon(self.name, layout.record(self.name), layout.log(self.name))

    @property
    def port(self) -> int:
        """The port of its clients, on loopback."""
        return self.state.ports[self.name]

    @property
    def pid(self) -> int | None:
        """The process id while the process lives, else None."""
        return self.daemon.pid

    @abstractmethod
    async def prepare(self, progress: Progress) -> Launch:
        """Write the configuration, create the data folder if there is none, and return how to start."""

    @abstractmethod
    async def check(self) -> None:
        """Ask the server for a sign of health. Any exception means that it is not healthy (yet)."""

    async def settle(self) -> None:
        """Create in a healthy server what the rest expects (a database, a user). Done at every start."""
        return

    def ports(self) -> tuple[int, ...]:
        """All ports that the part listens on."""
        return (self.port,)

    async def start(self, progress: Progress) -> None:
        """Make the part run and be healthy; start nothing if it already is. Raises ProcessFailed."""
        if self.pid is not None:
            if await self._healthy(START_BOUND_S):
                # The command that started it may have ended before this step.
                await self.settle()
                progress(f"{self.name} is running")
                return
            progress(f"{self.name} runs but does not answer; it is started again")
            await self.stop()
        begun = time.monotonic()
        launch = await self.prepare(progress)
        await self._require_ports()
        progress(f"{self.name} is starting")
        self.daemon.start(launch.command, launch.cwd, launch.environment)
        if not await self._healthy(START_BOUND_S):
            state = "does not answer" if self.pid is not None else "ended while it started"
            raise ProcessFailed(
                f"{self.name} {state}. Its log ends with:\n{self.daemon.log_tail()}",
                f"The whole log: {self.daemon.log}",
            )
        await self.settle()
        progress(f"{self.name} is ready after {time.monotonic() - begun:.1f} s")

    async def stop(self) -> None:
        """End the part cleanly; a part that does not end within its limit is killed."""
        await self.daemon.stop(self.stop_signal, self.stop_bound_s)

    def kill(self) -> None:
        """Kill the part and its children at once, as a power cut would."""
        self.daemon.kill()

    async def status(self, address: str | None) -> PartStatus:
        """Return the status of the part."""
        pid = self.pid
        if pid is None:
            dead = self.daemon.recorded()
            detail = f"process {dead.pid} ended by itself; log: {self.daemon.log}" if dead is not None else ""
            return PartStatus(self.name, "stopped", None, address, detail, None)
        try:
            await self.check()
        except Exception as error:  # any failure of the check is what the status reports
            detail = f"{type(error).__name__}: {error}".splitlines()[0]
            return PartStatus(self.name, "unhealthy", pid, address, detail, self.daemon.resident_mib())
        return PartStatus(self.name, "running", pid, address, "", self.daemon.resident_mib())

    async def _healthy(self, bound_s: float) -> bool:
        deadline = time.monotonic() + bound_s
        while time.monotonic() < deadline and self.pid is not None:
            try:
                await self.check()
            except Exception:  # not healthy yet: the limit ends the wait
                await asyncio.sleep(_POLL_S)
            else:
                # Another program's server on our port would answer, too, after ours has just ended.
                return self.pid is not None
        return False

    async def _require_ports(self) -> None:
        """Raise ProcessFailed for a port of another program; wait for the port of a process that is just ending."""
        deadline = time.monotonic() + _PORT_BOUND_S
        for port in self.ports():
            # The threads of a killed process may hold its port for a moment after the process itself is gone.
            while not port_is_free(port):
                if time.monotonic() < deadline:
                    await asyncio.sleep(_POLL_S)
                    continue
                raise ProcessFailed(
                    f"{self.name} cannot start: its port {port} is taken by {_owner_of(port)}.",
                    f"End that program. The port is remembered in {self.layout.state_file}, since clients know it.",
                )


def _owner_of(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                if connection.pid is None:
                    break
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        pass
    return f"another program (see who listens on {LOOPBACK}:{port})"
