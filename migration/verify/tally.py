"""The counts of a round: what its comparisons saw goes to the result, the proof, the digests and the publisher."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from domain.comparison import Difference
from migration.coverage import LIES
from migration.verify.orphans import Seen
from migration.verify.ports import DifferenceSink, DigestStore, Waits
from migration.verify.proof import Proof
from migration.verify.ranges import Range, Walked
from migration.verify.recheck import Rechecked
from migration.verify.result import Verification
from schemas.keys import point_hash
from schemas.tasks import RangeProof, Verdict

NO_WAITS: Waits = MappingProxyType({})


def count(result: Verification, difference: Difference, listed: int) -> None:
    """Count a difference, and list it while there is room."""
    result.kinds[difference.kind] += 1
    result.reasons[difference.reason.value] += 1
    if len(result.differences) < listed:
        result.differences.append(difference)
    else:
        result.more_differences += 1


class Reservoir:
    """Up to `size` of all documents offered, each chosen with the same probability."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._random = random.Random(seed)  # noqa: S311  # picks the documents to check, no secret
        self._offered = 0
        self.chosen: list[str] = []

    def offer(self, ids: Sequence[str]) -> None:
        """Offer documents."""
        for one in ids:
            self._offered += 1
            if len(self.chosen) < self._size:
                self.chosen.append(one)
            elif (at := self._random.randrange(self._offered)) < self._size:
                self.chosen[at] = one


class Tally:
    """Counts a round. `seen` holds the points of documents with a row, `reservoir` candidates for the sample."""

    def __init__(
        self,
        result: Verification,
        proof: Proof,
        digests: DigestStore | None,
        sink: DifferenceSink,
        reservoir: Reservoir,
        listed: int,
    ) -> None:
        self.result, self.proof = result, proof
        self.seen, self.reservoir = Seen(), reservoir
        self._digests, self._sink, self._listed = digests, sink, listed
        self._unchecked: set[int] = set()

    def resumed(self, rng: Range, proof: RangeProof) -> None:
        """Count a range that the interrupted run proved equal."""
        self.result.resumed += 1
        self.result.legacy_documents += proof.rows
        for part in (self._digests.read(rng.number, rng.after, rng.upto) if self._digests else None) or ():
            self.seen.add(b"".join([point_hash(self.result.collection, i, 0) for i in part.ids]), b"")

    async def walked(self, seen: Walked, begun_ms: int) -> None:
        """Count a range that was compared; one with candidates is pending until they are decided."""
        result, rng = self.result, seen.range
        result.legacy_documents += seen.rows
        result.rows_read += seen.rows_read
        result.points += seen.points
        result.unchecked += len(seen.unchecked)
        result.repaired += await self._sink.refresh(seen.unchecked, NO_WAITS)
        self.seen.add(b"".join(seen.beginnings), b"".join(seen.others))
        self.reservoir.offer(seen.offered)
        incomplete = bool(seen.unchecked or seen.unread)
        verdict: Verdict = "pending" if seen.candidates else "unknown" if incomplete else "equal"
        if incomplete:
            self._unchecked.add(rng.number)
        if seen.unread:
            what = f"the rows after {rng.after or 'the beginning'}"
            self.unknown(what, None, begun_ms, f"{seen.unread} rows of the table were read by no page: {LIES}")
        proof = RangeProof(
            after=rng.after,
            upto=rng.upto,
            verdict=verdict,
            proved_at_ms=begun_ms,
            rows=seen.rows,
            checksum=seen.checksum,
        )
        self.proof.keep(rng.number, proof)
        self._remember(seen)

    def undecided(self, numbers: Collection[int], count: int, error: str) -> None:
        """Count candidates that could not be rechecked."""
        self.unknown(f"{count} documents that differed", None, 0, error)
        for number in numbers:
            self._decide(number, "unknown")

    def unknown(self, what: str, rng: Range | None, begun_ms: int, error: str) -> None:
        """Count something that could not be read, so that it does not count as equal."""
        self.result.unknown += 1
        if len(self.result.errors) < self._listed:
            self.result.errors.append(f"{what}: {error}")
        if rng is not None:
            self._forget(rng.number)
            proof = RangeProof(after=rng.after, upto=rng.upto, verdict="unknown", proved_at_ms=begun_ms)
            self.proof.keep(rng.number, proof)

    async def decided(self, numbers: Collection[int], candidates: Mapping[str, int | None], done: Rechecked) -> None:
        """Count the outcome for candidates, which belong to the ranges of these numbers (None: they have no row)."""
        self.result.settled += len(done.settled)
        self.result.pending += len(done.pending)
        room = max(0, self._listed - len(self.result.pending_ids))
        self.result.pending_ids += [difference.id for difference in done.pending[:room]]
        await self.different(done.different, done.waits)
        different = {candidates.get(difference.id) for difference in done.different}
        pending = {candidates.get(difference.id) for difference in done.pending}
        for number in numbers:
            otherwise: Verdict = "unknown" if number in self._unchecked else "equal"
            self._decide(number, "different" if number in different else "pending" if number in pending else otherwise)

    async def unsound(self, waited: Waits) -> None:
        """Count documents whose ledger rows are fixed."""
        self.result.ledger_repaired += await self._sink.refresh(list(waited), waited)

    async def different(self, differences: Sequence[Difference], waited: Waits = NO_WAITS) -> None:
        """Count differences and publish them."""
        for difference in differences:
            count(self.result, difference, self._listed)
        self.result.repaired += await self._sink.publish(differences, waited)

    def _decide(self, number: int, verdict: Verdict) -> None:
        self.proof.keep(number, self.proof.ranges[number].model_copy(update={"verdict": verdict}))

    def _remember(self, seen: Walked) -> None:
        """Write the digests of a range; a document that differed gets a digest that no points have."""
        rng = seen.range
        if self._digests is not None and seen.checksum is not None and not seen.unread:
            self._digests.write(rng.number, rng.after, rng.upto, seen.parts)
        else:
            self._forget(rng.number)

    def _forget(self, number: int) -> None:
        if self._digests is not None:
            self._digests.forget(number)
