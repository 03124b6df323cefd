"""The ground of the trials: a real stack, proxies for its servers, two tables, and workers that use the proxies."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx

from connectors.errors import CrossfadeError, TaskFailed
from connectors.kafka.connect import PLAIN, ConnectClient
from connectors.qdrant import socket_path
from connectors.qdrant.engine.client import HostedVectorStore
from schemas.settings import Connector
from stack.layout import PartName, StackAddresses
from stack.stack import LocalStack
from tests.contract.legacy_places import Connection
from tests.faults.checker import Findings, Versions, check_contents, check_outcomes, points_of, rows_of
from tests.faults.closing import forget_captures
from tests.faults.proxy import Proxy
from tests.faults.seen import Seen
from tests.faults.traffic import Application, Books, Store, Submitter
from tests.faults.workers import Worker
from tests.flow.site import DOCUMENTS
from tests.flow.worker_process import command, remedy, settings_of

Link = Literal["kafka", "postgres", "mariadb", "connect"]
LINKS: tuple[Link, ...] = ("kafka", "postgres", "mariadb", "connect")
CLEAN_BOUND_S = 150.0
LOOKS_BEFORE_REPAIR = 6
_POLL_S = 0.3
# The interval between checks for failed connectors: each check is one request per connector.
_REVIVE_S = 1.0


@dataclass
class Ground:
    """Everything that a fault may act on and the checker reads."""

    config: Path
    stack: LocalStack
    addresses: StackAddresses
    prefix: str
    proxies: dict[Link, Proxy]
    stores: list[Store]
    worker: Worker
    second: Worker
    vectors: HostedVectorStore
    submitter: Submitter
    seen: Seen
    versions: Versions = field(default_factory=Versions)
    readers: dict[tuple[Connector, str], Connection] = field(default_factory=dict)
    connector_restarts: int = 0
    revives_at_s: float = 0.0
    recaptured: int = 0
    repaired: bool = False
    waited_for: str = ""

    async def restart(self, name: PartName) -> None:
        """Start a killed part again, as an init system would."""
        await self.stack.part(name).start(lambda _: None)

    async def revive_workers(self) -> None:
        """Start the worker if it does not run, as a supervisor would."""
        if not self.worker.alive:
            self.worker.restarts += 1
            await self.worker.start()

    async def revive(self) -> None:
        """Restart the worker if it has ended, and connectors whose task has failed, as an operator would."""
        await self.revive_workers()
        if time.monotonic() < self.revives_at_s:
            return
        self.revives_at_s = time.monotonic() + _REVIVE_S
        with contextlib.suppress(TaskFailed):  # Connect is just coming back
            async with ConnectClient(self.addresses.connect) as client:
                for name in await client.names():
                    if await self._is_own(client, name) and (await client.status(name)).failed:
                        self.connector_restarts += 1
                        await client.restart(name)

    async def _is_own(self, client: ConnectClient, name: str) -> bool:
        return (await client.config(name)).get("topic.prefix", "").startswith(self.prefix)

    async def stopped(self) -> list[str]:
        """Return the collections that are quarantined according to the worker's page."""
        async with httpx.AsyncClient(timeout=5, trust_env=False, verify=PLAIN) as client:
            page = (await client.get(f"http://127.0.0.1:{self.worker.port}/readyz")).json()
        return [stopped["collection"] for stopped in page["stopped"]]

    async def stopped_and_recaptured(self, bound_s: float) -> None:
        """Wait until the worker reports a quarantined collection, and recapture it as the remedy says."""
        deadline = time.monotonic() + bound_s
        while not (stopped := await self.stopped()):
            assert time.monotonic() < deadline, f"nothing was stopped in {bound_s:.0f} s:\n{self.worker.tail()}"
            await asyncio.sleep(0.3)
        self.recaptured += 1
        code, output = await command(self.config, self.stack.home, "recapture", *stopped)
        assert code == 0, f"recapture ended with {code}: {output}"

    async def repair(self, reported_before: int) -> None:
        """Repair as an operator does after a dead letter. The checker reads the result, not the command's output."""
        assert self.seen.dead_lettered > reported_before, "a difference that nothing reported"
        self.repaired = True
        for store in self.stores:
            await command(
                self.config,
                self.stack.home,
                "verify",
                store.name,
                "--repair",
                "--recheck-delay",
                "0.5",
                "--sample",
                "0",
            )

    async def holds(self, collection: str, document_id: str, stamp: str) -> bool:
        """Return whether Qdrant has the version of a document whose title is the stamp."""
        try:
            found = await self.vectors.stored(collection, [document_id], content=True)
        except CrossfadeError:
            return False
        return any((point.text or "").split()[:1] == [stamp] for point in found.get(document_id, ()))

    async def read(self, store: Store, reader: str) -> Connection:
        """Return a connection that bypasses the proxy, for one task only. Open it again if the previous one broke."""
        key = (store.connector, reader)
        if key not in self.readers:
            self.readers[key] = await Connection.open(store.connector, getattr(self.addresses, store.connector))
        return self.readers[key]

    def forget_reader(self, reader: str) -> None:
        """Drop a reader's connections, so that they are opened again."""
        for key in [key for key in self.readers if key[1] == reader]:
            del self.readers[key]

    async def sample(self) -> None:
        """Note the stored versions of every document. Skip a store that is away."""
        for store in self.stores:
            try:
                async with asyncio.timeout(3):
                    await self.versions.sample_table(await self.read(store, "sampler"), store.name)
            except Exception:  # both drivers raise many kinds for a server that is away; the next sample reads it
                self.forget_reader("sampler")
            try:
                async with asyncio.timeout(3):
                    await self.versions.sample_points(self.vectors, store.name)
            except Exception:  # noqa: S110 - as above
                pass

    async def look(self) -> Findings:
        """Check the present state of everything. Raises if a store cannot be read."""
        found = Findings(went_down=list(self.versions.found.went_down))
        if not await self.seen.catch_up():
            found.lost.append("the outcomes cannot be read to their end")
        for store in self.stores:
            points = await points_of(self.vectors, store.name)
            rows = await rows_of(await self.read(store, "checker"), store.name)
            found.extend(check_contents(rows, points, store))
            found.extend(check_outcomes(store.books, self.seen)[0])
        return found

    async def until_clean(self, reported_before: int, *, repairs: bool, bound_s: float = CLEAN_BOUND_S) -> Findings:
        """Check until two checks in a row find nothing, or the bound is reached; return the last findings.

        With `repairs`, repair the differences after every `LOOKS_BEFORE_REPAIR` checks. Dead letters beyond
        `told_before` must have reported them.
        """
        deadline = time.monotonic() + bound_s
        clean, looks, found = 0, 0, Findings()
        self.repaired, self.waited_for = False, ""
        while clean < 2 and time.monotonic() < deadline:
            await self.revive()
            try:
                async with asyncio.timeout(20):
                    found = await self.look()
            except Exception as error:  # a store that is just coming back
                self.forget_reader("checker")
                found = Findings(lost=[f"cannot be read: {type(error).__name__}: {error}"])
            clean, looks = (clean + 1 if found.clean else 0), looks + 1
            self.waited_for = self.waited_for if found.clean else str(found)
            if repairs and not found.clean and looks % LOOKS_BEFORE_REPAIR == 0:
                await self.repair(reported_before)
            await asyncio.sleep(_POLL_S)
        return found


def configuration(prefix: str, ports: dict[Link, int], tables: dict[Connector, str], dsns: dict[Connector, str]) -> str:
    """Return the text of a `crossfade.toml` that names only proxies. Its bounds are short, so that they are reached."""
    parts = [
        f'[kafka]\nbootstrap = "127.0.0.1:{ports["kafka"]}"\nconnect = "http://127.0.0.1:{ports["connect"]}"\n'
        f'capture_prefix = "{prefix}"\n',
        "[worker]\nstall_s = 15.0\ndrain_s = 5.0\nretry_max_s = 2.0\nretry_attempts = 4\n",
        "[embedding]\ntimeout_s = 3.0\n",
    ]
    for connector, name in tables.items():
        parts.append(
            f'[collections.{name}]\nconnector = "{connector}"\ntable = "{name}"\nkey = ["id"]\n'
            f'dsn = "{dsns[connector]}"\ntext = ["title", "body"]\nmetadata = ["kind", "line"]\nchunk_tokens = 32\n'
        )
    return "".join(parts)


@asynccontextmanager
async def ground_of(stack: LocalStack, addresses: StackAddresses, folder: Path) -> AsyncIterator[Ground]:
    """Make the ground on a running stack. Close its connections and workers and forget its captures at the end."""
    run = uuid.uuid4().hex[:6]
    tables: dict[Connector, str] = {"postgres": f"faults_{run}_pg", "mariadb": f"faults_{run}_my"}
    async with AsyncExitStack() as resources:
        proxies = await _proxies(addresses, resources)
        dsns = {connector: _behind(proxies, addresses, connector) for connector in tables}
        stores = []
        for connector, table in tables.items():
            books = Books()
            application = Application(connector, getattr(addresses, connector), table, books)
            resources.push_async_callback(application.close)
            await application.execute(DOCUMENTS[connector].replace("{t}", table))
            stores.append(Store(table, connector, books, application))
        config = folder / "crossfade.toml"
        ports = {link: proxy.port for link, proxy in proxies.items()}
        config.write_text(configuration(f"faults.{run}", ports, tables, dsns))
        await remedy(settings_of(config, stack.home))
        resources.push_async_callback(forget_captures, addresses, f"faults.{run}")
        first, second = (Worker(name, config, stack.home, folder) for name in ("first", "second"))
        for worker in (first, second):
            resources.push_async_callback(worker.stop)
        await first.start()
        vectors = HostedVectorStore(socket_path(stack.home))
        resources.push_async_callback(vectors.close)
        seen = Seen(addresses.kafka)
        resources.callback(seen.close)
        submitter = Submitter(addresses.kafka)
        yield Ground(
            config, stack, addresses, f"faults.{run}", proxies, stores, first, second, vectors, submitter, seen
        )


async def _proxies(addresses: StackAddresses, resources: AsyncExitStack) -> dict[Link, Proxy]:
    proxies: dict[Link, Proxy] = {}
    for link in LINKS:
        address = urlsplit(f"//{addresses.kafka}" if link == "kafka" else getattr(addresses, link))
        assert address.port is not None
        proxies[link] = Proxy(address.port, kafka=link == "kafka")
        await proxies[link].start()
        resources.push_async_callback(proxies[link].stop)
    return proxies


def _behind(proxies: dict[Link, Proxy], addresses: StackAddresses, connector: Connector) -> str:
    """Return the address of a database behind its proxy."""
    direct = str(getattr(addresses, connector))
    return direct.replace(f":{urlsplit(direct).port}/", f":{proxies[connector].port}/")
