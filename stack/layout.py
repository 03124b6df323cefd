"""Where the local stack keeps its files, and its ports and passwords, chosen once. No process is started here."""

from __future__ import annotations

import os
import random
import secrets
import socket
import stat
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from connectors.errors import TaskFailed

LOOPBACK = "127.0.0.1"
DATABASE = "crossfade"
DATABASE_USER = "crossfade"
PORT_NAMES = ("kafka", "kafka_controller", "connect", "postgres", "mariadb")
# Below the range from which Linux and macOS take ports for outgoing connections, so that a chosen port is still free
# when the stack is started again.
_PORT_RANGE = range(20_000, 32_000)
_PORT_TRIES = 500

PartName = Literal["kafka", "connect", "postgres", "mariadb", "qdrant"]
# In the order of starting; parts are ended in the order of `STOP_ORDER`.
PART_NAMES: tuple[PartName, ...] = ("kafka", "connect", "postgres", "mariadb", "qdrant")
STOP_ORDER: tuple[PartName, ...] = ("connect", "kafka", "mariadb", "postgres", "qdrant")


_PASSED_THROUGH = 0o711


@dataclass(frozen=True)
class StackAddresses:
    """How the parts are reached: `kafka` as host:port, the others as URLs with user and password."""

    kafka: str
    connect: str
    postgres: str
    mariadb: str | None


class StackState(BaseModel):
    """What is decided on the first start and must never change for the same data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    ports: dict[str, int]
    kafka_cluster_id: str
    postgres_password: str
    mariadb_password: str
    # Parts that have been started at least once.
    parts: frozenset[PartName] = Field(default_factory=frozenset)

    def addresses(self) -> StackAddresses:
        """Return the addresses of all parts; MariaDB's only if it was ever started."""
        mariadb = None
        if "mariadb" in self.parts:
            mariadb = f"mysql://{DATABASE_USER}:{self.mariadb_password}@{LOOPBACK}:{self.ports['mariadb']}/{DATABASE}"
        return StackAddresses(
            kafka=f"{LOOPBACK}:{self.ports['kafka']}",
            connect=f"http://{LOOPBACK}:{self.ports['connect']}",
            postgres=(
                f"postgresql://{DATABASE_USER}:{self.postgres_password}@{LOOPBACK}:{self.ports['postgres']}/{DATABASE}"
            ),
            mariadb=mariadb,
        )


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders and files below CROSSFADE_HOME."""

    home: Path

    @property
    def state_file(self) -> Path:
        """The file of what must never change for the same data: see `StackState`."""
        return self.home / "state.json"

    @property
    def lock_file(self) -> Path:
        """The lock that a command holds while it starts or ends parts."""
        return self.home / "lock"

    def data(self, part: PartName) -> Path:
        """Return the folder that the part's server owns."""
        return self.home / "data" / part

    def log(self, part: PartName) -> Path:
        """Return the file of everything that the part's process prints."""
        return self.home / "logs" / f"{part}.log"

    def record(self, part: PartName) -> Path:
        """Return the file with the identity of the running process of a part."""
        return self.home / "run" / f"{part}.json"

    def configuration(self, part: PartName) -> Path:
        """Return the folder of the files written for a part at each start."""
        return self.home / "etc" / part

    def create(self) -> None:
        """Create the folders; only their owner may enter the home, because it holds passwords."""
        try:
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in ("data", "logs", "run", "etc"):
                (self.home / name).mkdir(exist_ok=True, mode=0o700)
            for folder in (self.home, *(self.home / name for name in ("data", "logs", "run", "etc"))):
                _keep_private(folder)
            if self.state_file.exists():
                _keep_private(self.state_file, 0o600)
        except OSError as error:
            raise TaskFailed(
                f"The folder {self.home} cannot be used: {error.strerror or error}.",
                "Give another folder with --home or CROSSFADE_HOME.",
            ) from error


def _keep_private(path: Path, mode: int = 0o700) -> None:
    """Remove other users' access to a folder or file that already existed. Raises TaskFailed, OSError.

    Exception: root lets a system user pass through to its data (`privileges`), who sees nothing on the way.
    """
    found = path.stat()
    passing = os.geteuid() == 0 and stat.S_IMODE(found.st_mode) == _PASSED_THROUGH
    if not stat.S_IMODE(found.st_mode) & 0o077 or passing:
        return
    if found.st_uid != os.geteuid() and os.geteuid() != 0:
        raise TaskFailed(
            f"{path} belongs to another user and others may read it: it is to hold passwords.",
            "Give another folder with --home or CROSSFADE_HOME.",
        )
    path.chmod(mode)


def default_home() -> Path:
    """Return CROSSFADE_HOME, or `~/.crossfade`."""
    return Path(os.environ.get("CROSSFADE_HOME") or "~/.crossfade").expanduser().absolute()


def read_state(home: Path) -> StackState | None:
    """Return what was decided on the first start, None if there was none. Raises TaskFailed if it is damaged."""
    path = Layout(home).state_file
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise TaskFailed(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        return StackState.model_validate_json(text)
    except ValidationError as error:
        raise TaskFailed(
            f"{path} is damaged or was written by another version: {error.error_count()} fields are wrong.",
            f"Move {home} away and start again: the file holds the ports and passwords of the data next to it.",
        ) from error


def write_state(home: Path, state: StackState) -> None:
    """Replace the state file in one step; only its owner can read it."""
    write_private(Layout(home).state_file, state.model_dump_json(indent=2) + "\n")


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, durably; only its owner can read it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def new_state() -> StackState:
    """Choose free ports, and create the passwords and the cluster id."""
    return StackState(
        ports=_free_ports(PORT_NAMES),
        kafka_cluster_id=urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="),
        postgres_password=secrets.token_hex(16),
        mariadb_password=secrets.token_hex(16),
    )


def read_addresses(home: Path) -> StackAddresses | None:
    """Return the stored addresses, whether or not the parts run now; None if the stack was never up."""
    state = read_state(home)
    return state.addresses() if state is not None else None


def _free_ports(names: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    generator = random.SystemRandom()
    for name in names:
        for _ in range(_PORT_TRIES):
            port = generator.choice(_PORT_RANGE)
            if port not in found.values() and port_is_free(port):
                found[name] = port
                break
        else:
            raise TaskFailed(f"No free port between {_PORT_RANGE.start} and {_PORT_RANGE.stop} was found.")
    return found


def port_is_free(port: int) -> bool:
    """Return whether a server could listen on the loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A port with connections of an ended server in TIME_WAIT is free for a new server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
