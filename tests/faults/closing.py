"""Shared by the tests of quarantined collections: tables of their own, a supervised worker, and its status page."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from connectors.errors import CrossfadeError
from connectors.kafka.connect import PLAIN, ConnectClient
from connectors.sql.postgres.slots import drop_slot
from migration.verify.collection import verify_collection
from migration.verify.options import Bounds, VerifyOptions
from schemas.rollout import Phase
from schemas.settings import Connector
from stack.layout import StackAddresses
from tests.contract.legacy_places import Connection
from tests.flow.site import DOCUMENT_LINES, DOCUMENTS, document_rows, eventually
from tests.flow.worker_process import WorkerProcess, command, remedy, settings_of
from topics.captures import Capture

ROWS = 20


@dataclass
class Table:
    """One collection and its table, which is `{t}` in statements. Both have the same `name`."""

    name: str
    connector: Connector
    connection: Connection

    async def execute(self, *statements: str) -> None:
        for statement in statements:
            await self.connection.execute(statement.replace("{t}", self.name))

    async def recorded(self, name: str) -> int | None:
        """Return the value that crossfade recorded for the collection under a name."""
        found = await self.connection.fetch(f"select value from crossfade_meta where name = '{name}.{self.name}'")
        return int(found[0][0]) if found else None


@dataclass
class Closing:
    """Tables, and a worker that captures the tables in its configuration."""

    home: Path
    config: Path
    run: str
    addresses: StackAddresses
    worker: WorkerProcess
    tables: dict[str, Table] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        return f"closing.{self.run}"

    async def capture(self, purpose: str) -> Capture:
        """Return how a collection is captured now."""
        table = self.tables[purpose]
        kept = f"capture.{table.name}.e{await table.recorded('source_epoch')}"
        found = await table.connection.fetch(f"select value from crossfade_identities where name = '{kept}'")
        return Capture.of(str(found[0][0]))

    async def configure(
        self,
        tables: Mapping[str, Connector],
        lines: str = "",
        *,
        phase: Phase = "dual_write",
        dsns: Mapping[str, str] | None = None,
    ) -> None:
        """Create the missing tables, and write the configuration of all of them. `dsns` are by purpose."""
        text = [f'[kafka]\ncapture_prefix = "{self.prefix}"\n[worker]\nrestart_attempts = 3\n', lines]
        for purpose, connector in tables.items():
            if purpose not in self.tables:
                connection = await Connection.open(connector, str(getattr(self.addresses, connector)))
                table = Table(f"closing_{self.run}_{purpose}", connector, connection)
                await table.execute(DOCUMENTS[connector], f"insert into {{t}} values {', '.join(document_rows(ROWS))}")
                self.tables[purpose] = table
            name = self.tables[purpose].name
            text.append(f'[collections.{name}]\nconnector = "{connector}"\ntable = "{name}"\nkey = ["id"]\n')
            text.append(f'dsn = "{dsns[purpose]}"\n' if dsns and purpose in dsns else "")
            # What a backend that is away does to the roles is tried here; a guard would move the questions meanwhile.
            text.append(f'phase = "{phase}"\n{DOCUMENT_LINES}guards = {{ enabled = false }}\n')
        self.config.write_text("".join(text))
        await remedy(settings_of(self.config, self.home))

    async def reconnect(self) -> None:
        """Connect to the databases again, after one was stopped."""
        for table in self.tables.values():
            table.connection = await Connection.open(table.connector, str(getattr(self.addresses, table.connector)))

    async def recorded_epochs(self) -> tuple[int, int]:
        """Return the recorded epochs of the log and of producers' positions; 1 if none is recorded."""
        found = await next(iter(self.tables.values())).connection.fetch("select name, value from crossfade_meta")
        values = {str(name): int(value) for name, value in found}
        return values.get("documents.log.epoch", 1), values.get("documents.submitted.epoch", 1)

    async def page(self, path: str = "readyz") -> tuple[int, dict[str, Any]]:
        async with httpx.AsyncClient(trust_env=False, verify=PLAIN) as client:
            answer = await client.get(f"http://127.0.0.1:{self.worker.port}/{path}")
            return answer.status_code, answer.json()

    async def stopped(self) -> dict[str, str]:
        """Return the reasons of the quarantined collections by purpose, as the page shows them."""
        try:
            _, page = await self.page()
        except httpx.HTTPError:
            return {"": "no page"}
        names = {table.name: purpose for purpose, table in self.tables.items()}
        return {names[each["collection"]]: each["reason"] for each in page["stopped"]}

    async def is_stopped(self, **reasons: str) -> None:
        async def holds() -> bool:
            return await self.stopped() == reasons

        await eventually(holds, f"the page says {reasons}")

    async def same(self, *purposes: str) -> None:
        """Wait until the verifier finds each collection's stores equal. A command would take seconds to start."""
        wanted = VerifyOptions(Bounds(recheck_delay_s=0.5, sample=0))
        for purpose in purposes:

            async def equal(name: str = self.tables[purpose].name) -> bool:
                try:
                    found = await verify_collection(settings_of(self.config, self.home), self.home, name, wanted)
                except CrossfadeError:
                    return False
                return found.verdict == "equal"

            await eventually(equal, f"both stores of {purpose} are equal")

    async def command(self, *arguments: str) -> tuple[int, str]:
        return await command(self.config, self.home, *arguments)

    async def recapture(self, *purposes: str) -> str:
        code, output = await self.command("recapture", *(self.tables[purpose].name for purpose in purposes))
        assert code == 0, output
        return output


@asynccontextmanager
async def closing(
    addresses: StackAddresses, home: Path, folder: Path, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Closing]:
    """Yield a ground whose worker is not started yet. Remove its connectors, slots and tables at the end."""
    config = folder / "crossfade.toml"
    made = Closing(home, config, uuid.uuid4().hex[:6], addresses, WorkerProcess(config, home, environ or {}))
    async with AsyncExitStack() as resources:
        resources.push_async_callback(_forget, made)
        resources.push_async_callback(made.worker.stop)
        yield made


async def _forget(made: Closing) -> None:
    await forget_captures(made.addresses, made.prefix)
    for table in made.tables.values():
        await table.execute("drop table {t}")
        await table.connection.close()


async def forget_captures(addresses: StackAddresses, prefix: str) -> None:
    """Remove the connectors whose topics begin with a prefix, and their slots."""
    async with ConnectClient(addresses.connect) as client:
        for name in await client.names():
            config = await client.config(name)
            if config.get("topic.prefix", "").startswith(prefix):
                await client.delete_with_offsets(name)
                if "slot.name" in config:
                    await drop_slot(addresses.postgres, config["slot.name"], config["publication.name"])
