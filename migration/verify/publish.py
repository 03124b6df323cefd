"""What happens to rechecked differences: each is published, and on request repaired through a refresh entry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from connectors.failpoints import passing
from connectors.ports import Bus
from domain.comparison import Difference
from migration.collection import CollectionStores
from migration.context import HandlerContext
from migration.refresh import append_refreshes
from migration.verify.ledger_audit import EndsOf, put_back, unsound
from migration.verify.ports import Waits
from schemas.documents import DifferenceFound, DifferenceRepaired
from schemas.keys import document_key
from schemas.records import Outgoing
from topics.catalogue import DIFFERENCES

SOURCE = "crossfade/verifier"
_PAGE = 500


async def nothing_to_check() -> None:
    """Stand in for the check of the log when the log cannot have changed."""


class DifferencePublisher:
    """Publishes differences. With `repair` it appends refresh entries; `check_log` runs once, before the first of them.

    Without `ends_of` nothing can be proved of a ledger row, and the row stays as it is.
    """

    def __init__(
        self,
        stores: CollectionStores,
        bus: Bus,
        ctx: HandlerContext,
        *,
        repair: bool,
        check_log: Callable[[], Awaitable[None]] = nothing_to_check,
        ends_of: EndsOf | None = None,
    ) -> None:
        self._stores, self._bus, self._ctx = stores, bus, ctx
        self._ends_of, self._repair = ends_of, repair
        self._check_log = check_log
        self._checked = False

    async def publish(self, differences: Sequence[Difference], waited: Waits) -> int:
        """Publish differences; return how many refreshes were appended. Raises StoreUnavailable, Misconfigured."""
        repaired = 0
        for start in range(0, len(differences), _PAGE):
            page = differences[start : start + _PAGE]
            ids = [difference.id for difference in page if difference.repairable]
            repaired += await self.refresh(ids, waited)
            passing("verify.before_publish")
            await self._publish(page)
        return repaired

    async def refresh(self, ids: Sequence[str], waited: Waits) -> int:
        """Append a refresh for each document if repair is requested; return how many.

        `waited` holds the producers' versions whose wait the refresh ends, if they are still waited for.
        """
        if not self._repair:
            return 0
        if not self._checked:
            await self._check_log()
            self._checked = True
        for start in range(0, len(ids), _PAGE):
            page = ids[start : start + _PAGE]
            evidence = await put_back(self._stores, page, self._ends_of, waited) if self._ends_of else None
            await append_refreshes(self._stores, page, bus=self._bus, ctx=self._ctx, source=SOURCE, evidence=evidence)
        return len(ids)

    async def unsound(self, drained: Callable[[], Awaitable[bool]]) -> Waits:
        """Return the documents whose ledger rows must be repaired; none without `repair` and `ends_of`.

        `drained` waits at the barrier. Raises StoreUnavailable, TransientError.
        """
        if self._ends_of is None or not self._repair:
            return {}
        return await unsound(self._stores, self._ends_of, drained)

    async def _publish(self, differences: Sequence[Difference]) -> None:
        name = self._stores.name
        events: list[DifferenceFound | DifferenceRepaired] = [
            DifferenceFound(
                collection=name,
                id=d.id,
                kind=d.kind,
                detail=d.detail,
                legacy_version=d.legacy_version,
                vector_version=d.vector_version,
            )
            for d in differences
        ]
        if self._repair:
            events += [DifferenceRepaired(collection=name, id=d.id, kind=d.kind) for d in differences if d.repairable]
        await self._bus.publish([self._record(event) for event in events])

    def _record(self, event: DifferenceFound | DifferenceRepaired) -> Outgoing:
        key = document_key(event.collection, event.id)
        event_id = f"{event.ce_type}/{key}/{self._ctx.clock()}"
        return self._ctx.emit(event, DIFFERENCES, key, event_id=event_id, source=SOURCE)
