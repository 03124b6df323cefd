"""Known wrong versions of crossfade (mutants), as data: the name of each, what it breaks, and what it replaces.

Each mutant is one mistake that somebody could make. They are switched on one at a time, over the production code.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agents.batch import Batch, Failures
from agents.batches import acknowledge, batches
from agents.embedder import _taken_out
from agents.resolver import resolve
from agents.runner import Runner
from agents.wiring import AGENTS, Agent
from connectors.errors import CrossfadeError, Refused
from connectors.memory.vectors import MemoryVectorStore
from connectors.ports import Bus
from domain.fold import LedgerState
from domain.points import DocumentPoints, chunks_of
from migration.collection import CollectionPorts
from schemas.content import content_hash
from schemas.dead_letters import dead_letter
from schemas.documents import DocumentEmbedded, DocumentResolved
from schemas.records import Outgoing
from topics.roles import ROLE_NAMES


@dataclass(frozen=True, slots=True)
class Mutant:
    """One wrong version.

    `changes` maps the dotted name of each replaced object, in the module that looks it up, to its replacement. `seed`
    is the seed that caught the mutant in the last search from 0 on. Trying it first saves minutes.
    """

    name: str
    breaks: str
    changes: dict[str, Any]
    seed: int = 0


def _agents(*names: str, **changes: Any) -> tuple[Agent, ...]:
    return tuple(replace(agent, **changes) if agent.name in names else agent for agent in AGENTS)


def _never(*_: object) -> bool:
    return False


def _always(*_: object) -> bool:
    return True


async def _nothing(*_: object, **__: object) -> None:
    return None


async def _acknowledged_at_once(stream: Any, *bounds: Any) -> AsyncIterator[Any]:
    async for events, records in batches(stream, *bounds):
        acknowledge(stream, events)
        yield events, records


async def _swallowed(runner: Runner, failure: Any) -> None:
    runner.health.dead_letters += 1


async def _unconfirmed(runner: Runner, failure: Any) -> None:
    letter = dead_letter(failure.message.record, stage=runner.role, error=failure.error, attempt=1)
    try:
        await runner.bus.publish([letter, *runner.lost(failure.message, failure.error)])
        await runner.on_dead_letter(failure)
    except CrossfadeError:
        return


_write = MemoryVectorStore.write


async def _hard_deletion(store: MemoryVectorStore, collection: str, documents: Sequence[DocumentPoints]) -> None:
    await _write(store, collection, documents)
    known = store._collections[collection]
    for document in documents:
        chunks = known.chunks.get(document.id, {})
        for number, name in list(chunks.items()):
            if known.points[name].mark.deleted:
                del known.points[name], chunks[number]


class _HeldBus:
    """A bus that holds decisions back until the handler has finished everything else."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.held: list[Outgoing] = []

    async def publish(self, records: Sequence[Outgoing]) -> None:
        self.held += records


async def _ledger_first(batch: Batch, *, bus: Bus, **ports: Any) -> Failures:
    held = _HeldBus(bus)
    failures = await resolve(batch, bus=held, **ports)
    await bus.publish(held.held)
    return failures


async def _around_the_writers(ports: CollectionPorts, ids: Sequence[str], **_: Any) -> dict[str, Refused]:
    ledger, rows = await ports.ledger.read(ids), await ports.table.rows(ids)
    for document_id, row in rows.items():
        text, version = row.content.full_text(), ledger[document_id].state.version if document_id in ledger else 0
        (vector,) = await ports.embedder.embed_documents([text])
        points = DocumentPoints(
            document_id,
            version,
            row.content.tenant,
            content_hash(row.content),
            ports.embedder.model_key,
            row.content.metadata,
            chunks_of([text], [vector]),
            (),
        )
        await ports.vectors.write(ports.name, [points])
    return {}


def _no_chunk_tombstones(chunks: int, *_: Any) -> tuple[int, ...]:
    return () if chunks else (0,)


def _last_of_the_batch(items: Any) -> dict[str, Any]:
    return {event.id: (message, event) for message, event in items}


def _no_versions(*_: object) -> dict[str, tuple[int, int]]:
    return {}


def _ledger_as_it_is(ledger: LedgerState, _: object) -> LedgerState:
    return ledger


async def _nothing_unsound(*_: object) -> dict[str, int]:
    return {}


def _without_tenant(**fields: Any) -> DocumentEmbedded:
    return DocumentEmbedded(**fields | {"tenant": "default"})


def _taken_out_untold(ports: CollectionPorts, event: DocumentResolved) -> DocumentEmbedded:
    return _taken_out(ports, event).model_copy(update={"refused": False})


def _everywhere(name: str, replacement: Callable[..., Any], *modules: str) -> dict[str, Any]:
    return {f"{module}.{name}": replacement for module in modules}


MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "ledger guard off",
        "the legacy table takes an older version over a newer one",
        {"connectors.memory.legacy.ledger_moves": _always},
    ),
    Mutant(
        "vector guard off",
        "Qdrant takes an older version over a newer one",
        _everywhere("vector_moves", _always, "connectors.memory.vectors", "agents.vector_writer"),
    ),
    Mutant(
        "a zombie's write without a condition",
        "the writer looks before it writes, but the write itself has no condition",
        {"connectors.memory.vectors.vector_moves": _always},
        282,
    ),
    Mutant(
        "commit before effect",
        "records are acknowledged when they are taken",
        {"agents.faust_apps.batches": _acknowledged_at_once},
    ),
    Mutant("exception acknowledged", "what fails is dropped", {"agents.runner.Runner._give_up": _swallowed}, 3),
    Mutant(
        "dead letter not confirmed",
        "a dead letter that was not published is taken for published",
        {"agents.runner.Runner._give_up": _unconfirmed},
        272,
    ),
    Mutant(
        "tombstone hard-deleted",
        "a deletion takes the points away, and their versions with them",
        {"connectors.memory.vectors.MemoryVectorStore.write": _hard_deletion},
    ),
    Mutant(
        "chunk tombstones forgotten",
        "a document that shrinks leaves its old chunks",
        {"agents.vector_writer.tombstones_for": _no_chunk_tombstones},
        1,
    ),
    Mutant("echo not recognised", "our own write is taken for the application's", {"domain.fold.is_echo": _never}),
    Mutant(
        "ledger before publish",
        "the resolver remembers a decision before it published it",
        {"agents.worker.AGENTS": _agents("resolver", handle=_ledger_first)},
    ),
    Mutant(
        "producer's position ignored",
        "a second delivery of a submission takes effect again",
        {"domain.fold.producer_delivered_again": _never},
    ),
    Mutant(
        "captured position ignored",
        "a second delivery of a captured change takes effect again",
        {"domain.fold.captured_delivered_again": _never},
    ),
    Mutant(
        "pending ignored",
        "captured changes older than a producer's write take effect after it",
        {"domain.fold.is_pending": _never},
    ),
    Mutant(
        "an unawaited echo brings nothing",
        "a row that comes back from an archive with its version is missing in Qdrant",
        {"domain.fold.is_unawaited": _never},
        6,
    ),
    Mutant(
        "a repair ends no wait",
        "a document whose echo was lost is frozen for ever",
        {"domain.fold.wait_is_ended": _never},
        53,
    ),
    Mutant(
        "impossible positions believed",
        "a damaged position has every later change passed over",
        {"domain.fold._without_disproved": _ledger_as_it_is},
        277,
    ),
    Mutant(
        "impossible versions believed",
        "a damaged version has every later change passed over",
        {"migration.verify.ledger_audit.impossible_versions": _no_versions},
        21,
    ),
    Mutant(
        "points beyond the log kept",
        "a point of a version that is too high is never written again",
        {"connectors.memory.vectors.MemoryVectorStore.forget": _nothing},
        1,
    ),
    Mutant(
        "only differences repaired",
        "a damaged ledger row of a document that is still the same hides its next change",
        {"tests.simulation.run.unsound": _nothing_unsound},
        109,
    ),
    Mutant(
        "refresh without a comparison",
        "a row that was read before a captured change is taken for newer than it",
        {"domain.fold.refresh_is_outdated": _never},
        110,
    ),
    Mutant(
        "repair beside the writers",
        "rows are written to Qdrant directly instead of through the log",
        _everywhere(
            "append_refreshes",
            _around_the_writers,
            "agents.resolver",
            "agents.legacy_writer",
            "migration.verify.publish",
            "tests.simulation.world",
        ),
    ),
    Mutant(
        "refusal without a refresh",
        "Qdrant keeps a version that the table refused",
        {"agents.legacy_writer._follow": _nothing},
    ),
    Mutant(
        "no event waits for its row",
        "Qdrant gets an event without the columns that it leaves out, and its outcome there is told twice",
        {"migration.collection.waits_for_row": _never},
    ),
    Mutant(
        "a document that is too long is told twice",
        "the writer tells that Qdrant has what only left it",
        {"agents.embedder._taken_out": _taken_out_untold},
        0,
    ),
    Mutant(
        "last of the batch taken for the newest",
        "an older version behind a newer one in a batch wins",
        _everywhere("newest_of", _last_of_the_batch, "agents.embedder", "agents.legacy_writer"),
        383,
    ),
    Mutant(
        "every role gives up",
        "a change that was half done becomes a dead letter, and is done again later",
        {"agents.worker.AGENTS": _agents(*ROLE_NAMES, gives_up=True)},
        35,
    ),
    Mutant(
        "placeholder taken for text",
        "a value that Debezium left out is embedded as it stands",
        {"connectors.debezium.changes._UNAVAILABLE_FORMS": ()},
        17,
    ),
    Mutant(
        "tenant left out",
        "points of every tenant are visible to the default one",
        {"agents.embedder.DocumentEmbedded": _without_tenant},
    ),
)
