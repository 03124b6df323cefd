"""Daemons of the local stack: start, recognise, stop and kill one process. What the process does is not known here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from connectors.errors import ProcessFailed
from stack.layout import write_private

_POLL_S = 0.05
_KILL_BOUND_S = 10.0
_LOG_LIMIT_BYTES = 4 * 1024 * 1024
_LOG_TAIL_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """Identity of a process: a pid alone may belong to another process later, a pid with its start time does not."""

    pid: int
    started: str


def start_mark(pid: int) -> str | None:
    """Return when a process started, as a text that no later process with the same pid can have; None if it is gone.

    Zombies count as gone. On Linux the text is the boot's id and the start in clock ticks since boot. Unlike a time of
    day, this does not change when the clock is set.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            _reap(pid)
            return None
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            # Field 22; the second field is the program's name in parentheses and may contain spaces.
            ticks = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
            return f"{boot}:{ticks}"
        return f"time:{process.create_time():.2f}"
    except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
        return None


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(pid, os.WNOHANG)


class Daemon:
    """One process with its own session, recorded in a file so that any later command finds it again."""

    def __init__(self, name: str, record: Path, log: Path) -> None:
        self.name = name
        self.log = log
        self._record = record

    def recorded(self) -> ProcessRecord | None:
        """Return the process that was started last and not stopped since, dead or alive."""
        try:
            data = json.loads(self._record.read_text(encoding="utf-8"))
            return ProcessRecord(pid=int(data["pid"]), started=str(data["started"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def pid(self) -> int | None:
        """The process id while the process lives, else None."""
        record = self.recorded()
        if record is None or start_mark(record.pid) != record.started:
            return None
        return record.pid

    def start(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None) -> int:
        """Start the command in its own session, with its output appended to the log. Raises ProcessFailed."""
        self._rotate_log()
        try:
            with self.log.open("ab") as log:
                # No `with`: the daemon outlives this process.
                process = subprocess.Popen(
                    list(command),
                    cwd=cwd,
                    env=dict(environment) if environment is not None else None,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise ProcessFailed(f"{self.name} cannot be started: {error.strerror or error} ({command[0]}).") from error
        started = start_mark(process.pid)
        if started is not None:
            write_private(self._record, json.dumps({"pid": process.pid, "started": started}))
        # From now on the daemon is recognised by its record, also by this process. Without a return code, Popen would
        # warn about a child that still runs when the object is garbage-collected.
        process.returncode = 0
        return process.pid

    async def stop(self, first: signal.Signals, bound_s: float) -> None:
        """Send `first`, wait up to `bound_s` for the end, then kill it with all children. Forgets the process."""
        pid = self.pid
        if pid is not None:
            family = _family(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, first)
            if not await self._ended(bound_s):
                self.kill()
                await self._ended(_KILL_BOUND_S)
            # Children that outlived their parent, if any.
            for child in family[1:]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            if self.pid is not None:
                raise ProcessFailed(f"{self.name} (process {pid}) does not end, even when killed.")
        self._record.unlink(missing_ok=True)

    def kill(self) -> None:
        """Kill the process and its children at once, as a power cut would. Its record stays."""
        pid = self.pid
        if pid is None:
            return
        for process in _family(pid):
            # psutil checks the start time before it kills, so another process that took the pid is safe.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        deadline = time.monotonic() + _KILL_BOUND_S
        while self.pid is not None and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def resident_mib(self) -> float | None:
        """Memory of the process and its children in MiB; shared pages count once if the system reports them."""
        pid = self.pid
        if pid is None:
            return None
        total = 0
        for process in _family(pid):
            with contextlib.suppress(psutil.Error):
                try:
                    total += int(process.memory_full_info().pss)
                except (psutil.AccessDenied, AttributeError):
                    total += process.memory_info().rss
        return round(total / 1024 / 1024, 1)

    def log_tail(self, lines: int = 12) -> str:
        """Return the last lines of the log."""
        try:
            with self.log.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - _LOG_TAIL_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    async def _ended(self, bound_s: float) -> bool:
        deadline = time.monotonic() + bound_s
        while self.pid is not None:
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    def _rotate_log(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > _LOG_LIMIT_BYTES:
                self.log.replace(self.log.with_suffix(".log.1"))


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
