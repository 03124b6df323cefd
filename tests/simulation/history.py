"""Histories from seeds. Everything that happens is chosen here, once, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.simulation import actions as act
from tests.simulation.harm import COLUMNS
from tests.simulation.loop import Fault
from tests.simulation.places import DOCUMENTS, LONG
from tests.simulation.ports import NO_VECTOR, POISON

ROLES = ("intake", "capture", "resolver", "legacy", "embedder", "vector")
TENANTS = ("default", "red", "blue")
WRONG = ("broken", "unknown column", "too long")
TROUBLE = (Fault.DOWN, Fault.BUSY, Fault.HALF, Fault.LOST, Fault.LOST, Fault.LATE)


@dataclass(frozen=True)
class Temper:
    """The character of a history: its documents, how often each kind of action occurs, and the disturbed roles."""

    documents: tuple[str, ...]
    length: int
    faults: float
    refusals: float
    restless: tuple[str, ...]
    weights: tuple[int, ...]


KINDS = ("step", "submit", "write", "capture", "commit", "zombie", "fate", "capture again", "verify", "land", "harm")
HARMED = 4
"""One seed in this many has a history beyond the protocol: lost slots, triggers, damage."""


class Generator:
    """The maker of one seed's history."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        # A separate random stream, so that rare choices leave every other choice unchanged.
        self.rare = Random(f"rare {seed}")
        chance = self.random
        documents = tuple(chance.sample(DOCUMENTS, chance.choice((1, 2, 2, 3, 5))))
        calm = chance.random() < 0.1
        fates = chance.choice((2, 4, 8))
        self.temper = Temper(
            documents,
            chance.choice((60, 120, 200, 300)),
            0.0 if calm else chance.choice((0.05, 0.15, 0.3)),
            # Permanent refusals leave documents different until they are repaired, so only some histories have them.
            0.0 if chance.random() < 0.6 else 0.3,
            ROLES if chance.random() < 0.6 else (chance.choice(ROLES),),
            (
                *(60, 7, 7, 12, 8, 0 if calm else 8, 0 if calm else fates, 0 if calm else 3, 3, 0 if calm else 3),
                3 if seed % HARMED == 1 else 0,
            ),
        )

    def first_rows(self) -> act.Write:
        rows = [document for document in self.temper.documents if self.random.random() < 0.5]
        return act.Write(tuple((document, self.body(plain=True)) for document in rows))

    def actions(self) -> list[act.Action]:
        kinds = self.random.choices(KINDS, self.temper.weights, k=self.temper.length)
        return [self.action(kind) for kind in kinds]

    def action(self, kind: str) -> act.Action:
        chance = self.random
        made: dict[str, Callable[[], act.Action]] = {
            "step": self.step,
            "submit": self.submit,
            "write": self.write,
            "capture": self.capture,
            "commit": lambda: act.Commit(chance.choice(ROLES)),
            "zombie": lambda: act.Zombie(chance.randrange(8), chance.randrange(1, 6), self.fault()[0]),
            "fate": self.fate,
            "capture again": lambda: act.CaptureAgain(self.collection(), chance.choice((0, 0, 3))),
            "verify": lambda: act.Verify((self.document(),), chance.random() < 0.5),
            "harm": self.harm,
            "land": lambda: act.Land(chance.randrange(4)),
        }
        return made[kind]()

    def capture(self) -> act.Capture:
        chance = self.random
        holes = chance.getrandbits(12) if chance.random() < 0.2 else 0
        return act.Capture(self.collection(), chance.randrange(1, 6), holes, chance.random() < 0.8)

    def step(self) -> act.Step:
        chance = self.random
        deliver = tuple(chance.randrange(4) for _ in range(chance.choice((0, 1, 2, 4, 6))))
        points = chance.choice((1, 2, 3, 5, 8, 40))
        fault, times = self.fault()
        return act.Step(chance.choice(ROLES), deliver, points, fault, times)

    def fault(self) -> tuple[Fault, int]:
        chance = self.random
        if chance.random() >= self.temper.faults:
            return Fault.NONE, 1
        if chance.random() < self.temper.refusals:
            return chance.choice((Fault.REFUSED, Fault.BUSY)), chance.choice((2, 3, 4))
        return chance.choice(TROUBLE), 1

    def submit(self) -> act.Submit:
        chance = self.random
        body = None if chance.random() < 0.25 else self.body()
        if body and self.rare.random() < 0.15:
            body = body._replace(text=None)
        form = chance.choice(WRONG) if chance.random() < 0.08 else chance.choice(("binary", "binary", "structured"))
        partition = chance.randrange(2) if chance.random() < 0.3 else None
        return act.Submit(self.document(), body, form, partition)

    def harm(self) -> act.Action:
        chance, kind = self.random, self.random.choice(("slot", "trigger", "damage", "damage", "damage"))
        if kind == "slot":
            return act.LoseSlot(self.collection())
        if kind == "trigger":
            return act.Trigger(self.collection(), chance.choice(act.TRIGGERS))
        return act.Damage(self.document(), chance.choice(COLUMNS), chance.randrange(1000))

    def write(self) -> act.Write | act.Archive | act.Restore:
        luck = self.random.random()
        if luck < 0.08:
            return act.Archive(self.document())
        if luck < 0.2:
            return act.Restore(self.document(), self.document())
        count = self.random.choice((1, 1, 1, 2, 3))
        return act.Write(tuple((self.document(), self.update()) for _ in range(count)))

    def update(self) -> act.Body | None:
        """Return what an application writes to a row; None deletes it."""
        luck = self.random.random()
        body = self.body(plain=True)
        return None if luck < 0.3 else body._replace(text=None) if luck < 0.5 else body

    def fate(self) -> act.Action:
        chance, role = self.random, self.random.choice(self.temper.restless)
        kind = chance.choice(("crash", "crash", "replace", "replace", "rebalance", "rewind"))
        if kind == "crash":
            return act.Crash(role)
        if kind == "replace":
            return act.Replace(role)
        if kind == "rebalance":
            return act.Rebalance(role)
        return act.Rewind(role, chance.choice((1, 3, 1000)))

    def body(self, plain: bool = False) -> act.Body:
        """Return a body. No constraint refuses a `plain` one."""
        chance = self.random
        words = [chance.choice("abcde") for _ in range(chance.randrange(0, 9))]
        if plain and self.rare.random() < 0.05:
            words.append(LONG)
        if not plain and chance.random() < 0.12:
            words.append(POISON)
        if not plain and chance.random() < self.temper.refusals / 3:
            words.append(NO_VECTOR)
        return act.Body(
            " ".join(words),
            chance.choice((None, None, "x", "y")),
            chance.choice((None, 1990, 2000)),
            chance.choice(TENANTS),
            chance.choice((0, 0, 0, 1, 2)),
        )

    def document(self) -> str:
        return self.random.choice(self.temper.documents)

    def collection(self) -> str:
        return self.document().partition("/")[0]
