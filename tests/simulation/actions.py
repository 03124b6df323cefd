"""What may happen in a history, as data: a history is a list of these, each done as far as it can be done at its turn.

Everything that chance decides is in the actions, so that any part of a list is a history too.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.simulation.loop import Fault


class Body(NamedTuple):
    """What a producer or an application writes; `given` seeds an embedding that comes with it (0: none).

    Without a text it stays as it is.
    """

    text: str | None
    title: str | None = None
    year: int | None = None
    tenant: str = "default"
    given: int = 0


class Submit(NamedTuple):
    """A producer publishes; no body deletes. `form`: binary, structured, or what is wrong with the event."""

    document: str
    body: Body | None
    form: str = "binary"
    partition: int | None = None


class Write(NamedTuple):
    """An application's transaction: rows inserted, updated, or (None) deleted."""

    changes: tuple[tuple[str, Body | None], ...]


class Capture(NamedTuple):
    """Debezium publishes the next changes of a table; not `saved`: after a crash they come again."""

    collection: str
    changes: int
    holes: int = 0
    saved: bool = True


class CaptureAgain(NamedTuple):
    """The connector of a table crashes, or goes back by some changes."""

    collection: str
    back: int = 0


class Step(NamedTuple):
    """A role is given records (by partition), passes some points, and a fault happens at the last of them."""

    role: str
    deliver: tuple[int, ...]
    points: int
    fault: Fault = Fault.NONE
    times: int = 1


class Crash(NamedTuple):
    """The process of a role ends where it stands; another begins at the committed offsets."""

    role: str


class Replace(NamedTuple):
    """A role gets another process, while the old one does not know it yet and may go on as a zombie."""

    role: str


class Rebalance(NamedTuple):
    """A role's partitions are assigned anew: it reads on from the committed offsets."""

    role: str


class Zombie(NamedTuple):
    """One of the replaced processes goes on."""

    number: int
    points: int
    fault: Fault = Fault.NONE


class Commit(NamedTuple):
    """A role's offsets are committed, as far as they were acknowledged."""

    role: str


class Rewind(NamedTuple):
    """A role crashes, and its committed offsets are put back: records come again."""

    role: str
    back: int


class Land(NamedTuple):
    """A call that timed out has its effect now."""

    number: int


class Verify(NamedTuple):
    """The verifier has rows read again; with `ends` it ends the waits that it sees, at whatever moment."""

    documents: tuple[str, ...]
    ends: bool = False


class Archive(NamedTuple):
    """An application's transaction deletes a row and keeps a copy of it, version and all."""

    document: str


class Restore(NamedTuple):
    """An application inserts a copy that it kept, or one of another document's row, over whatever is there."""

    document: str
    source: str


class LoseSlot(NamedTuple):
    """Capture loses its place in a database's log, and begins again with a snapshot in a new source epoch."""

    collection: str


class Trigger(NamedTuple):
    """From now on a trigger does something with what the legacy writer writes; `kind` is one of `TRIGGERS`."""

    collection: str
    kind: str


class Damage(NamedTuple):
    """Somebody sets a column of a document's ledger row or a field of its points to something else."""

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
"""After these nobody promises that both stores become equal by themselves, but that two repairs make them equal."""
TRIGGERS = ("none", "swallows", "strips the version", "changes")
