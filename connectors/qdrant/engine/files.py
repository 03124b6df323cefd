"""Paths of the embedded engine's files and of its host's socket, and the lock of its folder. No engine is opened."""

from __future__ import annotations

import fcntl
import os
import tempfile
from hashlib import blake2b
from pathlib import Path
from typing import IO

import msgspec

from connectors.errors import Misconfigured, StoreUnavailable

_LONGEST_SOCKET_PATH = 107


def engine_folder(home: Path) -> Path:
    """Return the folder of the embedded engine's collections."""
    return home / "qdrant"


def socket_path(home: Path) -> Path:
    """Return the socket path of the engine's host: in `home`, or in the temporary folder if that path is too long.

    A Unix socket's path holds at most 107 bytes on Linux (unix(7)).
    """
    path = home.absolute() / "qdrant.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    digest = blake2b(os.fsencode(home.resolve()), digest_size=12).hexdigest()
    return Path(tempfile.gettempdir()) / f"crossfade-qdrant-{digest}.sock"


class Description(msgspec.Struct, frozen=True):
    """The content of a collection's `collection.json`: the length of its vectors, and its current generation."""

    dimension: int
    generation: int


def description_of(folder: Path) -> Description | None:
    """Return the description in a collection's folder, or None if there is none. Raises Misconfigured for damage."""
    path = folder / "collection.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Description)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise Misconfigured(f"collection {folder.name}: {path} is damaged: {error}") from error


def describe(folder: Path, description: Description) -> None:
    """Write `collection.json` in one atomic step that survives a power cut."""
    fresh = folder / "collection.json.new"
    with fresh.open("wb") as file:
        file.write(msgspec.json.encode(description))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(folder / "collection.json")
    folder_fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


def generation_folder(folder: Path, generation: int) -> Path:
    """Return the folder of one generation of a collection."""
    return folder / f"g{generation}"


def folder_inode(folder: Path) -> int | None:
    """Return a folder's inode number, or None if it does not exist. A replacement of the same name has another one."""
    try:
        return folder.stat().st_ino
    except OSError:
        return None


def described_dimension(home: Path, collection: str) -> int | None:
    """Return the length of a collection's vectors, or None if it does not exist.

    Raises Misconfigured for damaged files.
    """
    description = description_of(engine_folder(home) / collection)
    return None if description is None else description.dimension


class FolderLock:
    """An advisory lock on a folder. It holds the owner's process id; the system frees it when the owner dies."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock. Raises StoreUnavailable, naming the owner, if another process has it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a+", encoding="ascii")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            raise StoreUnavailable(
                f"Qdrant's files in {self._path.parent} are open in process {owner}; stop it, or use its socket"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def release(self) -> None:
        """Release the lock. Does nothing if it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder and keep the holes of sparse files: the engine's log files are mostly holes."""
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            _copy_file(path, copy)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as write:
        size = os.fstat(read.fileno()).st_size
        write.truncate(size)
        at = 0
        while at < size:
            try:
                at = os.lseek(read.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                return
            end = os.lseek(read.fileno(), at, os.SEEK_HOLE)
            os.lseek(write.fileno(), at, os.SEEK_SET)
            while at < end:
                at += os.sendfile(write.fileno(), read.fileno(), at, end - at)
