"""Keeps one worker process running: starts it, starts it again after a crash or a stall, and stops it in order.

Runs in its own process, which imports only the standard library so that it stays small. It knows nothing about what the
worker does: only its exit code, its ready file and its page /livez.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

from stack import child

FAILED = 1
# The exit code of a worker whose configuration is wrong: starting it again would change nothing.
HOPELESS = 2
PORT_VARIABLE = "CROSSFADE_WORKER__HTTP_PORT"
_HOST = "127.0.0.1"
_POLL_S = 0.1
_ASK_S = 2.0
_KEPT_LINES = 20
_KEPT_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """What is kept running, and within which limits.

    `attempts`: the supervisor gives up after this many failures in a row, each before it was ready for `steady_s`.
    The pause before a start doubles from `wait_s` to `wait_max_s`. `stall_s`: a worker that is ready is killed if its
    /livez has not answered with 200 for this long. `start_s` limits the time until it is ready, `drain_s` its stop.
    """

    command: tuple[str, ...]
    ready_file: str
    attempts: int = 5
    wait_s: float = 0.5
    wait_max_s: float = 30.0
    steady_s: float = 10.0
    start_s: float = 900.0
    stall_s: float = 80.0
    drain_s: float = 30.0

    def pause_s(self, failures: int) -> float:
        """Return the pause before the next start after this many failures in a row."""
        return float(min(self.wait_max_s, self.wait_s * 2 ** min(max(0, failures - 1), 30)))


def replace_process(plan: Plan) -> NoReturn:
    """Continue as the supervisor of a plan: this process drops everything that it imported, and keeps its pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    code = "from stack.supervisor import main; main()"
    os.execv(sys.executable, [sys.executable, "-c", code, json.dumps(asdict(plan))])  # noqa: S606 - no shell


def main() -> None:
    """Supervise the plan given as JSON in the first argument; end the process with the supervisor's exit code."""
    given = json.loads(sys.argv[1])
    plan = Plan(**{**given, "command": tuple(given["command"])})
    try:
        sys.exit(asyncio.run(Supervisor(plan).run()))
    except KeyboardInterrupt:
        sys.exit(130)


@dataclass(slots=True)
class Supervisor:
    """One worker after another, never two at once."""

    plan: Plan
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    starts: int = 0
    _failures: int = 0
    _port: int = 0
    _last: deque[bytes] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))

    async def run(self) -> int:
        """Keep the worker running until SIGTERM or SIGINT; return the exit code for this process."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        while not stop.is_set():
            began = time.monotonic()
            code, ready_s = await self._one(stop)
            if stop.is_set():
                return self._stopped(code)
            if code in {0, HOPELESS}:
                return code
            steady = ready_s is not None and time.monotonic() - began - ready_s >= self.plan.steady_s
            self._failures = 1 if steady else self._failures + 1
            if self._failures >= self.plan.attempts:
                return self._given_up(code)
            pause_s = self.plan.pause_s(self._failures)
            _say(f"the worker {_ended(code)}; it is started again in {pause_s:g} s (failure {self._failures} in a row)")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s)
        return 0

    async def _one(self, stop: asyncio.Event) -> tuple[int, float | None]:
        """Run one worker to its end; return its exit code, and the seconds until it was ready (None: never)."""
        ready_file = child.cleared(Path(self.plan.ready_file))
        self._last.clear()
        self.starts += 1
        # Its own session: Ctrl-C reaches only the supervisor, which passes it on as SIGTERM.
        process = await asyncio.create_subprocess_exec(
            *self.plan.command,
            *("--supervisor", str(os.getpid())),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
            env=self._child_environment(),
        )
        began = time.monotonic()
        pipes = [asyncio.create_task(_forward(source, to, self._last)) for source, to in _outputs(process)]
        ended = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(stop.wait())
        watching = asyncio.create_task(self._watch(process, ready_file))
        try:
            await asyncio.wait({ended, stopping, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await self._end(process, drain=stop.is_set())
        finally:
            if process.returncode is None:
                process.kill()
            code = await process.wait()
            stopping.cancel()
            watching.cancel()
            await asyncio.wait(pipes, timeout=1.0)  # children of the worker may still hold the other end
            for pipe in pipes:
                pipe.cancel()
        found = await asyncio.gather(watching, return_exceptions=True)
        if isinstance(found[0], OSError):
            raise found[0]
        self._port = child.port_in(ready_file) or self._port  # the worker may have ended before the watch saw the port
        return code, self._ready_s(ready_file, began)

    def _ready_s(self, ready_file: Path, began: float) -> float | None:
        try:
            age_s = time.time() - ready_file.stat().st_mtime
        except FileNotFoundError:
            return None
        return max(0.0, time.monotonic() - began - age_s)

    def _child_environment(self) -> dict[str, str]:
        """Return the worker's environment, with its previous health port unless another process took it meanwhile."""
        environment = dict(self.environment)
        if self._port and _port_is_free(self._port):
            environment[PORT_VARIABLE] = str(self._port)
        return environment

    async def _watch(self, process: Process, ready_file: Path) -> None:
        """Return when the worker must be ended: not ready in time, or not alive for too long."""
        deadline = time.monotonic() + self.plan.start_s
        while (port := child.port_in(ready_file)) is None:
            if time.monotonic() > deadline:
                _say(f"the worker was not ready after {self.plan.start_s:g} s and is ended")
                return
            await asyncio.sleep(_POLL_S)
        self._port = port
        alive = time.monotonic()
        while time.monotonic() - alive < self.plan.stall_s:
            await asyncio.sleep(min(_ASK_S, self.plan.stall_s / 4))
            if await _is_alive(port, min(_ASK_S, self.plan.stall_s / 4)):
                alive = time.monotonic()
        _say(f"the worker (process {process.pid}) was not alive for {self.plan.stall_s:g} s and is killed")

    async def _end(self, process: Process, *, drain: bool) -> None:
        """Let the worker drain within its limit, then kill it; kill a stalled worker at once."""
        if not drain:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        elif not await child.end(process, self.plan.drain_s):
            _say(f"the worker did not end within {self.plan.drain_s:g} s and is killed; what it had will come again")

    def _stopped(self, code: int) -> int:
        """Return the exit code after a stop: a worker ended by SIGTERM before it handled signals ended well, too."""
        return 0 if code in {0, -signal.SIGTERM} else FAILED

    def _given_up(self, code: int) -> int:
        last = b"\n".join(self._last)[-_KEPT_BYTES:].decode("utf-8", "replace")
        _say(
            f"the worker {_ended(code)}, {self._failures} times in a row; it is not started again."
            f" Its last lines:\n{last}\nFix the cause, then start it again: crossfade worker"
        )
        return FAILED


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"crossfade: {text}\n")
        sys.stderr.flush()


def _ended(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _outputs(process: Process) -> Sequence[tuple[asyncio.StreamReader, int]]:
    assert process.stdout is not None  # noqa: S101 - both are pipes: for the type checker
    assert process.stderr is not None  # noqa: S101 - as above
    return ((process.stdout, 1), (process.stderr, 2))


async def _forward(source: asyncio.StreamReader, descriptor: int, kept: deque[bytes]) -> None:
    """Copy the worker's output to this process's output, and keep its last lines."""
    rest = b""
    while chunk := await source.read(64 * 1024):
        # A reader that went away does not stop the worker; a slow one delays it, as it would without us.
        with contextlib.suppress(OSError):
            await asyncio.to_thread(_write_all, descriptor, chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        kept.extend(line[-_KEPT_BYTES:] for line in lines)
        rest = rest[-_KEPT_BYTES:]
    if rest:
        kept.append(rest)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


async def _is_alive(port: int, limit_s: float) -> bool:
    """Ask /livez whether the worker is alive; no answer within the limit counts as no."""
    try:
        async with asyncio.timeout(limit_s):
            reader, writer = await asyncio.open_connection(_HOST, port)
            try:
                writer.write(b"GET /livez HTTP/1.0\r\n\r\n")
                status = (await reader.readline()).split()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return len(status) > 1 and status[1] == b"200"


def _port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True
