"""A whole installation in memory: both tables, bus, Qdrant, the production workers of every document role, and faults.

It performs the actions of a history. It does not check invariants: it reports every record and every effect to a
`Watch`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path
from struct import pack
from typing import Any, cast
from unittest.mock import patch

import orjson
import stamina

from agents import worker as worker_module
from agents.worker import Worker
from connectors.kafka.bus import AiokafkaBus
from connectors.memory.bus import MemoryBus
from connectors.memory.legacy import MemoryBulk, MemoryLedger, MemoryTable
from connectors.memory.vectors import MemoryVectorStore
from connectors.telemetry import Telemetry
from domain.legacy import LegacyRow
from migration.collection import CollectionPorts, CollectionStores
from migration.context import HandlerContext
from migration.epochs import Epochs
from migration.opener import Opened
from migration.refresh import append_refreshes
from migration.verify.ledger_audit import EndsOf
from migration.verify.publish import DifferencePublisher
from migration.verify.recheck import waits
from schemas.content import Content
from schemas.records import Outgoing, Received
from tests.simulation import actions as act
from tests.simulation.harm import damage, ends_of, trigger_of
from tests.simulation.kafka import Group, SimApp
from tests.simulation.loop import Fault, Process, Violation, at_once
from tests.simulation.places import DOCUMENTS, PARTITIONS, SETTINGS, SOURCE_EPOCHS, Connector, capture_in, legacy_of
from tests.simulation.ports import Port, SimEmbedder, Trouble
from tests.simulation.watch import Watch
from topics.catalogue import SUBMITTED
from topics.provisioning import captured_topics, desired_topics
from topics.roles import ROLES, RoleName

START_MS = 1_700_000_000_000
NAMES: tuple[RoleName, ...] = tuple(role.name for role in ROLES if role.stage)
BUFFER = 8
# Enough for every history: a role that passes more points without becoming idle never does.
MOST_POINTS = 20_000


class SimBus(MemoryBus):
    """A bus that reports each appended record to the watch."""

    watch: Watch

    def append(self, record: Outgoing, *, timestamp_ms: int | None = None, partition: int | None = None) -> Received:
        kept = super().append(record, timestamp_ms=timestamp_ms, partition=partition)
        self.watch.appended(kept)
        return kept


class World:
    """The installation, a context manager: inside it, production workers get simulated applications and clocks."""

    def __init__(self, first_rows: act.Write, trace: list[str]) -> None:
        self.now_ms = START_MS
        self.trace = trace
        captures = [capture_in(name, epoch) for name in SETTINGS.collections for epoch in range(1, SOURCE_EPOCHS + 1)]
        of_capture = [t for each in captures for t in captured_topics(SETTINGS.kafka, [each], mariadb=False)]
        every = (*desired_topics(SETTINGS), *of_capture)
        self.bus = SimBus({t.name: t.partitions for t in every}, clock_ms=self.clock)
        self.vectors, self.embedder = MemoryVectorStore(), SimEmbedder()
        self.legacy = {name: legacy_of(name) for name in SETTINGS.collections}
        self.watch = Watch(self.bus, self.legacy, self.vectors, self.embedder)
        self.bus.watch = self.watch
        self.trouble = Trouble(self.watch.effect)
        self.telemetry = Telemetry(tracing=False)
        self.ctx = HandlerContext(self.clock, 1, self.telemetry, SETTINGS.kafka.max_text_bytes)
        for legacy in self.legacy.values():
            at_once(self.vectors.prepare(legacy.name, self.embedder.dimension))
        self.collections = {name: self._ports(name) for name in self.legacy}
        self._write(first_rows)
        for legacy in self.legacy.values():
            legacy.images.clear()
        self.connectors = {name: Connector(legacy, self.bus) for name, legacy in self.legacy.items()}
        captured = tuple(connector.topic for connector in self.connectors.values())
        self.groups: dict[str, Group] = {
            role.name: Group(role.name, role.reads or captured, self.bus) for role in ROLES if role.name in NAMES
        }
        self.live: dict[str, tuple[SimApp, Process]] = {}
        self.zombies: list[Process] = []
        self.archived: dict[str, LegacyRow] = {}
        self.started = self.submitted = 0
        self._patches = ExitStack()

    def __enter__(self) -> World:
        logging.getLogger("crossfade").setLevel(logging.CRITICAL + 1)
        stamina.instrumentation.set_on_retry_hooks(())
        self._patches.enter_context(patch("agents.worker.make_app", lambda role, *_: SimApp(role, BUFFER)))
        self._patches.enter_context(patch("agents.worker.now_ms", self.clock))
        # Lanes wait concurrently on an event loop, but here one coroutine runs at a time. Lanes have their own tests.
        without = tuple(replace(agent, collection_of=None) for agent in vars(worker_module)["AGENTS"])
        self._patches.enter_context(patch("agents.worker.AGENTS", without))
        for role in NAMES:
            self.start(role)
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.zombies, *(process for _, process in self.live.values())]:
            process.kill()
        self._patches.close()
        stamina.instrumentation.set_on_retry_hooks(None)
        logging.getLogger("crossfade").setLevel(logging.NOTSET)

    def clock(self) -> int:
        return self.now_ms

    def _ports(self, name: str) -> CollectionPorts:
        legacy, trouble = self.legacy[name], self.trouble
        return CollectionPorts(
            name,
            cast(Any, Port(MemoryTable(legacy), "table", trouble, name)),
            MemoryBulk(legacy),
            cast(Any, Port(MemoryLedger(legacy), "ledger", trouble, name)),
            cast(Any, Port(self.vectors, "vectors", trouble, name)),
            self.embedder.dimension,
            max_text_bytes=SETTINGS.kafka.max_text_bytes,
            settings=SETTINGS.collections[name],
            embedder=cast(Any, Port(self.embedder, "embedder", trouble, name)),
            text_search=cast(Any, None),  # only the query agent searches, and it writes nothing
            capture=capture_in(name, 1),
        )

    # Processes

    def start(self, role: RoleName) -> None:
        """Start a process of a role at the committed offsets."""
        bus = cast(AiokafkaBus, Port(self.bus, "bus", self.trouble))
        opened = Opened(SETTINGS, bus, cast(Any, None), self.collections, Epochs(), AsyncExitStack())
        worker = Worker(opened, [role], Path(), self.telemetry)
        app: SimApp = worker._apps[0]
        app.assign(self.groups[role])
        self.started += 1
        self.live[role] = app, Process(f"{role}#{self.started}", app.agents[role](app), self.trace)

    def crash(self, role: RoleName) -> None:
        self.live[role][1].kill()
        self.start(role)

    def step(self, action: act.Step) -> None:
        app, process = self.live[cast(RoleName, action.role)]
        if action.deliver:
            app.deliver(self.groups[action.role], action.deliver)
        process.step(action.points, action.fault, action.times)
        self.revive(action.role)

    def revive(self, role: str) -> None:
        """Restart the process of a role whose agent ended with an error, as a supervisor does."""
        process = self.live[role][1]
        if process.point is None and process.error is not None:
            raise Violation(f"{process.name}: {process.error!r} got out of its agent")
        if process.stuck:
            self.crash(cast(RoleName, role))

    def commit(self, role: str) -> None:
        group, (app, _) = self.groups[role], self.live[role]
        for (topic, partition), end in app.committable(group).items():
            records = group.bus.read(topic, partition, group.committed[topic, partition], end)
            for record in records[: end - group.committed[topic, partition]]:
                self.watch.committed(role, record)
            group.committed[topic, partition] = end

    # Actions

    def do(self, action: act.Action) -> None:
        """Perform an action, as far as possible."""
        self.now_ms += 1
        match action:
            case act.Step():
                self.step(action)
            case act.Submit():
                self._submit(action)
            case act.Write():
                self._write(action)
            case act.Capture(name, count, holes, saved):
                self.connectors[name].publish(count, holes, saved)
            case act.CaptureAgain(name, back):
                self.connectors[name].rewind(back)
            case act.Zombie(number, points, fault):
                self._zombie(number, points, fault)
            case act.Land(number):
                if label := self.trouble.land(number):
                    self.trace.append(f"late: {label}")
            case act.Verify(documents, ends):
                self._verify(documents, ends)
            case act.Archive() | act.Restore():
                self._archive(action)
            case act.LoseSlot() | act.Trigger() | act.Damage():
                self._harm(action)
            case _:
                self._fate(action)

    def _archive(self, action: act.Archive | act.Restore) -> None:
        name, _, document_id = action.document.partition("/")
        legacy = self.legacy[name]
        if isinstance(action, act.Archive):
            row = legacy.stored.get(document_id)
            if row is not None:
                self.archived[action.document] = row
                legacy.delete_directly(document_id)
            return
        other, _, other_id = action.source.partition("/")
        row = self.archived.get(action.source) or (legacy.stored.get(other_id) if other == name else None)
        if row is not None and other == name:
            self.watch.restored.add(action.document)
            if action.source != action.document:
                self.watch.copied.add((action.document, row.version))
            legacy.put(replace(row, id=document_id))

    def _harm(self, action: act.LoseSlot | act.Trigger | act.Damage) -> None:
        self.watch.harmed = True
        match action:
            case act.LoseSlot(name):
                self._lose_slot(name)
            case act.Trigger(name, kind):
                self.legacy[name].trigger = trigger_of(kind)
            case act.Damage(document, column, number):
                name, _, document_id = document.partition("/")
                damage(self.legacy[name], self.vectors, document_id, column, number)

    def _lose_slot(self, name: str) -> None:
        """Act as `crossfade recapture` does: a new source epoch has its own connector and its own topic."""
        ports = self.collections[name]
        epoch = ports.source_epoch + 1
        if epoch > SOURCE_EPOCHS:
            return
        before, self.collections[name] = self.connectors[name].topic, replace(ports, capture=capture_in(name, epoch))
        self.legacy[name].images.clear()
        self.connectors[name] = Connector(self.legacy[name], self.bus, epoch)
        self.groups["capture"].read_instead(before, self.connectors[name].topic)
        self.crash("capture")

    def ends_of(self, name: str) -> EndsOf:
        """Return the function that gives a repair of a collection the current ends of the topics and of capture."""
        return ends_of(self.bus, self.legacy[name], self.connectors[name], self.ctx.epoch)

    def _fate(self, action: act.Crash | act.Replace | act.Rebalance | act.Commit | act.Rewind) -> None:
        role = cast(RoleName, action.role)
        match action:
            case act.Commit():
                self.commit(role)
            case act.Crash():
                self.crash(role)
            case act.Rewind(_, back):
                self.groups[role].rewind(back)
                self.crash(role)
            case act.Rebalance():
                self.groups[role].generation += 1
                self.live[role][0].assign(self.groups[role])
            case act.Replace():
                self.zombies.append(self.live[role][1])
                self.groups[role].generation += 1
                self.start(role)

    def _zombie(self, number: int, points: int, fault: Fault) -> None:
        self.zombies = [process for process in self.zombies if not process.idle]
        if self.zombies:
            self.zombies[number % len(self.zombies)].step(points, fault)

    def _verify(self, documents: Sequence[str], ends: bool) -> None:
        by_name: dict[str, list[str]] = {}
        for document in documents:
            name, _, document_id = document.partition("/")
            by_name.setdefault(name, []).append(document_id)
        bus = cast(Any, Port(self.bus, "bus", self.trouble))
        for name, ids in by_name.items():
            self.started += 1
            repair = self._ending(name, ids, bus) if ends else self._reading(name, ids, bus)
            self.zombies.append(Process(f"verifier#{self.started}", repair, self.trace))
            self.zombies[-1].go()

    async def _reading(self, name: str, ids: list[str], bus: Any) -> None:
        await append_refreshes(self.collections[name], ids, bus=bus, ctx=self.ctx, source="crossfade/verifier")

    async def _ending(self, name: str, ids: list[str], bus: Any) -> None:
        stores = self.stores(name)
        waited = await waits(stores, ids)
        await DifferencePublisher(stores, bus, self.ctx, repair=True, ends_of=self.ends_of(name)).refresh(ids, waited)

    def stores(self, name: str) -> CollectionStores:
        """Return a collection as the verifier sees it."""
        ports = self.collections[name]
        bulk = MemoryBulk(self.legacy[name])
        return CollectionStores(
            name,
            ports.table,
            bulk,
            ports.ledger,
            ports.vectors,
            ports.embedder.dimension,
            max_text_bytes=SETTINGS.kafka.max_text_bytes,
        )

    def _write(self, action: act.Write) -> None:
        for document, body in action.changes:
            name, _, document_id = document.partition("/")
            if body is None:
                self.legacy[name].delete_directly(document_id)
            else:
                old = self.legacy[name].stored.get(document_id)
                text = body.text if body.text is not None else old.content.text["body"] if old else ""
                self.legacy[name].write_directly(document_id, _content(name, body._replace(text=text)))
        self.trace.append(f"application writes {len(action.changes)}")

    def _submit(self, action: act.Submit) -> None:
        name, _, document_id = action.document.partition("/")
        self.submitted += 1
        cause = f"event-{self.submitted}"
        headers: tuple[tuple[str, bytes], ...] = (("ce_id", cause.encode()),)
        value: bytes | None = None
        if action.body is not None:
            data = _submission(name, document_id, action.body, action.form)
            value = orjson.dumps(data)
            if action.form == "structured":
                kind = "crossfade.document.submitted.v1"
                envelope = {"specversion": "1.0", "id": cause, "source": "p", "type": kind, "data": data}
                headers, value = (("content-type", b"application/cloudevents+json"),), orjson.dumps(envelope)
            elif action.form == "broken":
                value = value[:-1]
        record = Outgoing(SUBMITTED, action.document.encode(), value, headers)
        partition = None if action.partition is None else action.partition % PARTITIONS
        self.bus.append(record, partition=partition)
        self.watch.submitted[cause] = action


def _submission(name: str, document_id: str, body: act.Body, form: str) -> dict[str, Any]:
    data: dict[str, Any] = {"collection": name, "id": document_id}
    if body.text is not None:
        data["text"] = {"body": body.text, "title": body.title} if name == "docs" else body.text
    if name == "docs":
        data |= {"tenant": body.tenant, "metadata": {} if body.year is None else {"year": body.year}}
    if body.given:
        data["embedding"] = given(body.given)
    if form == "unknown column":
        data["metadata"] = {"colour": "red"}
    if form == "too long":
        data["text"] = {"body": "x" * 300} if name == "docs" else "x" * 300
    return data


def given(seed: int) -> list[float]:
    """Return the precomputed embedding of a document: one of a few unit vectors."""
    return [1.0 if n == seed % 8 else 0.0 for n in range(8)]


def _content(name: str, body: act.Body) -> Content:
    if name == "docs":
        return Content(tenant=body.tenant, text={"title": body.title, "body": body.text}, metadata={"year": body.year})
    return Content(text={"body": body.text}, embedding=pack("<8f", *given(body.given)) if body.given else None)


__all__ = ["DOCUMENTS", "MOST_POINTS", "NAMES", "World", "given"]
