"""The local stack for tests, as a pytest plugin: one stack for the session, ended with it. It contains no tests."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from stack.layout import StackAddresses
from stack.stack import ALL_PARTS, LocalStack

T = TypeVar("T")
_MODEL = """
import asyncio, pathlib, sys
from connectors.embedding.service import open_embedding
from connectors.embedding.settings import EmbeddingSettings
asyncio.run(open_embedding(EmbeddingSettings(), pathlib.Path(sys.argv[1]) / "models", print))
"""


def _progress(text: str) -> None:
    sys.stderr.write(f"[stack] {text}\n")


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a separate thread: an asynchronous fixture may request the stack from inside an event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@pytest.fixture(scope="session")
def stack_home() -> Iterator[Path]:
    """The home of the session's stack.

    `CROSSFADE_TEST_HOME` names a stack to use and to leave running. Without it, the stack is temporary: it is ended and
    removed.
    """
    given = os.environ.get("CROSSFADE_TEST_HOME")
    if given:
        yield Path(given).absolute()
        return
    home = Path(tempfile.mkdtemp(prefix="crossfade-test-"))
    if models := os.environ.get("CROSSFADE_TEST_MODELS"):  # shared: only one process exports the model
        (home / "models").symlink_to(models, target_is_directory=True)
    try:
        yield home
    finally:
        _run(LocalStack(home).down())
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _model_in(home: Path) -> Iterator[None]:
    """Export the model in the background, so that the first worker need not do it. It takes a minute."""
    process = subprocess.Popen(
        (sys.executable, "-c", _MODEL, str(home)), stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def stack(stack_home: Path) -> Iterator[StackAddresses]:
    """The addresses of a running stack with every part, MariaDB included.

    Without MariaDB, the tests are skipped on a developer's machine and fail in CI.
    """
    addresses = _run(LocalStack(stack_home, ALL_PARTS, install_mariadb=True).up(_progress))
    if addresses.mariadb is None:
        message = "MariaDB is not installed and cannot be installed here"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with _model_in(stack_home):
        yield addresses
