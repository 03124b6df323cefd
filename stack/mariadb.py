"""MariaDB from the system's package, as a plain process with the binary log that Debezium reads. No tables here."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiomysql

from connectors.errors import NotReady, ProcessFailed
from stack.layout import DATABASE, DATABASE_USER, LOOPBACK, write_private
from stack.part import Launch, Part, Progress

_CHECK_BOUND_S = 3.0
_INSTALL_BOUND_S = 300.0
_INIT_BOUND_S = 120.0
# Folders in which distributions put servers; not all are on an ordinary user's PATH.
_FOLDERS = os.pathsep.join(("/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin", "/usr/libexec"))
# They contain the server, the script that creates its data folder, and `my_print_defaults`, which that script calls.
# Neither package starts a service.
_DEBIAN_PACKAGES = ("mariadb-server-core", "mariadb-client-core")
_SERVER_ID = 1


@dataclass(frozen=True, slots=True)
class MariaDBPrograms:
    """The server, and the script that creates its data folder."""

    server: Path
    install: Path


def find_mariadb() -> MariaDBPrograms | None:
    """Return the installed MariaDB, or None."""
    path = os.pathsep.join((os.environ.get("PATH", ""), _FOLDERS))
    server = shutil.which("mariadbd", path=path)
    install = shutil.which("mariadb-install-db", path=path)
    helper = shutil.which("my_print_defaults", path=path)
    return MariaDBPrograms(Path(server), Path(install)) if server and install and helper else None


def ensure_mariadb(progress: Callable[[str], None]) -> MariaDBPrograms | None:
    """Return the installed MariaDB; if it is missing, install it as root on Debian and its derivatives.

    Returns None if it cannot be installed; the reason was reported to `progress`.
    """
    programs = find_mariadb()
    if programs is not None:
        return programs
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        progress(
            "mariadb is not installed; install your system's MariaDB server package (mariadbd, mariadb-install-db)"
        )
        return None
    progress(f"installing {' and '.join(_DEBIAN_PACKAGES)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        [apt, "update", "-q"],
        [apt, "install", "-q", "-y", "--no-install-recommends", *_DEBIAN_PACKAGES],
    ):
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=_INSTALL_BOUND_S, check=False
            )
        except subprocess.TimeoutExpired:
            progress(f"mariadb cannot be installed: {' '.join(command[:2])} took longer than {_INSTALL_BOUND_S:.0f} s")
            return None
        if done.returncode != 0:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            progress(f"mariadb cannot be installed: {' '.join(last)}")
            return None
    return find_mariadb()


class MariaDB(Part):
    """MariaDB on loopback; its Unix socket is in its data folder."""

    name = "mariadb"
    stop_bound_s = 40.0

    async def prepare(self, progress: Progress) -> Launch:
        """Create the data folder once, and write the statements that every start runs."""
        programs = find_mariadb()
        if programs is None:
            raise NotReady(
                "MariaDB is not installed on this system.",
                f"Install its server package (on Debian: {' '.join(_DEBIAN_PACKAGES)}), or start the other parts only.",
            )
        data = self.layout.data("mariadb")
        if not (data / "mysql").is_dir():
            progress("mariadb is creating its data folder")
            await asyncio.to_thread(self._initialise, data, programs)
        folder = self.layout.configuration("mariadb")
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / "tmp"
        temporary.mkdir(exist_ok=True)
        statements = folder / "init.sql"
        write_private(statements, self._init_statements())
        command = [
            str(programs.server),
            "--no-defaults",
            f"--datadir={data}",
            # Another server with the same temporary folder would remove our temporary tables when it starts.
            f"--tmpdir={temporary}",
            f"--port={self.port}",
            f"--bind-address={LOOPBACK}",
            # Relative to the data folder, so that a long home does not exceed the 107 bytes of a socket's path.
            "--socket=mariadb.sock",
            "--pid-file=mariadb.pid",
            f"--init-file={statements}",
            "--skip-name-resolve",
            f"--server-id={_SERVER_ID}",
            "--log-bin=binlog",
            "--binlog-format=ROW",
            "--binlog-row-image=FULL",
            "--binlog-row-metadata=FULL",
            "--gtid-strict-mode=1",
            "--sync-binlog=1",
            "--max-allowed-packet=64M",
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_unicode_ci",
            "--innodb-buffer-pool-size=128M",
            # So that a restart after a crash finishes soon.
            "--innodb-log-file-size=96M",
            "--performance-schema=OFF",
            *_user_option(),
        ]
        return Launch(command, cwd=data)

    async def check(self) -> None:
        """Check that a connection of crossfade's user answers."""
        connection = await aiomysql.connect(
            host=LOOPBACK,
            port=self.port,
            user=DATABASE_USER,
            password=self.state.mariadb_password,
            connect_timeout=_CHECK_BOUND_S,
        )
        try:
            await connection.ping(reconnect=False)
        finally:
            connection.close()

    def _initialise(self, data: Path, programs: MariaDBPrograms) -> None:
        # A data folder that a crash left half made is created again: it never held anything.
        making = data.with_name("mariadb.making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True, mode=0o700)
        command = [
            str(programs.install),
            "--no-defaults",
            f"--datadir={making}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            *_user_option(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INIT_BOUND_S, check=False, cwd=making)
        if done.returncode != 0:
            last = "\n".join((done.stderr + done.stdout).strip().splitlines()[-8:])
            raise ProcessFailed(f"MariaDB cannot create its data folder {data}:\n{last}")
        making.rename(data)

    def _init_statements(self) -> str:
        # One statement per line, as the server requires. The user administers this throw-away server: besides the
        # tables it needs what Debezium needs (RELOAD, REPLICATION SLAVE, BINLOG MONITOR). root gets the same password.
        user = f"'{DATABASE_USER}'@'{LOOPBACK}'"
        password = self.state.mariadb_password
        return "".join(
            f"{statement};\n"
            for statement in (
                f"CREATE DATABASE IF NOT EXISTS `{DATABASE}`",
                f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{password}'",
                f"GRANT ALL PRIVILEGES ON *.* TO {user} WITH GRANT OPTION",
                f"ALTER USER IF EXISTS 'root'@'localhost' IDENTIFIED BY '{password}'",
                "DROP USER IF EXISTS ''@'localhost'",
            )
        )


def _user_option() -> list[str]:
    # As root, the server needs explicit permission to run as root; its data folder then stays reachable anywhere.
    return ["--user=root"] if os.geteuid() == 0 else []
