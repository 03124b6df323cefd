"""The actions of a history, as data. A history is a list of actions, each performed as far as possible at its turn.

The actions contain every random choice, so any part of the list is a history too.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.simulation.loop import Fault


class Body(NamedTuple):
    """What a producer or an application writes; `given` seeds a precomputed embedding (0: none).

    Without a text, the document's text stays unchanged.
    """

    text: str | None
    title: str | None = None
    year: int | None = None
    tenant: str = "default"
    given: int = 0


class Submit(NamedTuple):
    """A producer publishes an event; without a body, a deletion. `form`: binary, structured, or the event's fault."""

    document: str
    body: Body | None
    form: str = "binary"
    partition: int | None = None


class Write(NamedTuple):
    """An application's transaction: rows inserted, updated, or (None) deleted."""

    changes: tuple[tuple[str, Body | None], ...]


class Capture(NamedTuple):
    """Debezium publishes the next changes of a table. If not `saved`, it publishes them again after a crash."""

    collection: str
    changes: int
    holes: int = 0
    saved: bool = True


class CaptureAgain(NamedTuple):
    """The connector of a table crashes, or goes back by `back` changes."""

    collection: str
    back: int = 0


class Step(NamedTuple):
    """A role receives records (by partition) and passes some points; the fault happens at the last of them."""

    role: str
    deliver: tuple[int, ...]
    points: int
    fault: Fault = Fault.NONE
    times: int = 1


class Crash(NamedTuple):
    """The process of a role ends at its current point; another starts at the committed offsets."""

    role: str


class Replace(NamedTuple):
    """A role gets another process. The old one does not know it yet and may continue as a zombie."""

    role: str


class Rebalance(NamedTuple):
    """A role's partitions are assigned again: it continues from the committed offsets."""

    role: str


class Zombie(NamedTuple):
    """One of the replaced processes continues."""

    number: int
    points: int
    fault: Fault = Fault.NONE


class Commit(NamedTuple):
    """A role's offsets are committed, as far as they are acknowledged."""

    role: str


class Rewind(NamedTuple):
    """A role crashes and its committed offsets go back, so that records are delivered again."""

    role: str
    back: int


class Land(NamedTuple):
    """A call that timed out takes effect now."""

    number: int


class Verify(NamedTuple):
    """The verifier has rows read again, at any moment. With `ends` it also ends the waits that it sees."""

    documents: tuple[str, ...]
    ends: bool = False


class Archive(NamedTuple):
    """An application's transaction deletes a row and keeps a copy of it, including its version."""

    document: str


class Restore(NamedTuple):
    """An application inserts its kept copy, or a copy of another document's row, over whatever the table holds."""

    document: str
    source: str


class LoseSlot(NamedTuple):
    """Capture loses its replication position, and starts again with a snapshot in a new source epoch."""

    collection: str


class Trigger(NamedTuple):
    """From now on a trigger intercepts what the legacy writer writes; `kind` is one of `TRIGGERS`."""

    collection: str
    kind: str


class Damage(NamedTuple):
    """Somebody sets a column of a document's ledger row, or a field of its points, to another value."""

    document: str
    column: str
    number: int


Action = (
    Submit
    | Write
    | Capture
    | CaptureAgain
    | Step
    | Crash
    | Replace
    | Rebalance
    | Zombie
    | Commit
    | Rewind
    | Land
    | Verify
    | Archive
    | Restore
    | LoseSlot
    | Trigger
    | Damage
)
HARM = (LoseSlot, Trigger, Damage)
"""Actions after which both stores need not become equal by themselves, but two repairs make them equal."""
TRIGGERS = ("none", "swallows", "strips the version", "changes")
