"""Qdrant's engine as a part of the stack: the host process of `connectors.qdrant`, on a Unix socket, without a port."""

from __future__ import annotations

import sys

from connectors.qdrant import healthy, socket_path
from stack.part import Launch, Part, Progress


class Engine(Part):
    """The embedded engine, so that worker, verifier and commands in several processes reach one engine."""

    name = "qdrant"

    def ports(self) -> tuple[int, ...]:
        """Return no ports: its clients use a Unix socket."""
        return ()

    async def prepare(self, progress: Progress) -> Launch:
        """Write nothing: the host creates its own folder."""
        home = self.layout.home
        command = (
            sys.executable,
            "-m",
            "connectors.qdrant.engine.host",
            "--home",
            str(home),
            "--socket",
            str(socket_path(home)),
        )
        return Launch(command, cwd=home)

    async def check(self) -> None:
        """Check that the host answers on its socket."""
        if not await healthy(socket_path(self.layout.home)):
            raise ConnectionError("no answer on the socket")
