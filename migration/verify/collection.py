"""Verification runs, from settings to results: open one collection, do one round or many, and close it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from connectors.errors import TransientError
from connectors.kafka.bus import AiokafkaBus
from connectors.telemetry import Telemetry
from migration.capture.barrier import Barrier
from migration.collection import CollectionStores
from migration.context import HandlerContext, now_ms
from migration.opener import check_log, open_embedder, open_stores
from migration.verify.digests import Digests
from migration.verify.ends import ends_of
from migration.verify.options import RoundOptions, VerifyOptions
from migration.verify.publish import DifferencePublisher
from migration.verify.resample import sample
from migration.verify.result import Verification
from migration.verify.rounds import AFTER_FAILURE_S, rounds
from migration.verify.run import Progress, verify
from migration.verify.throttle import Throttle
from schemas.keys import FIRST_EPOCH
from schemas.settings import Settings


def _nothing(_: object) -> None:
    """Ignore the reported progress."""


@asynccontextmanager
async def _opened(
    settings: Settings, home: Path, name: str, options: VerifyOptions, say: Callable[[str], None]
) -> AsyncIterator[tuple[CollectionStores, RoundOptions, DifferencePublisher]]:
    async with AsyncExitStack() as resources:
        stores = await open_stores(resources, settings, home, name)
        barrier = await resources.enter_async_context(Barrier(settings, name, stores.ledger))
        bus = AiokafkaBus(settings.kafka)
        resources.push_async_callback(bus.close)
        ctx = HandlerContext(now_ms, FIRST_EPOCH, Telemetry(tracing=False))
        publisher = DifferencePublisher(
            stores,
            bus,
            ctx,
            repair=options.repair,
            check_log=partial(check_log, settings, stores),
            ends_of=partial(ends_of, settings, stores),
        )
        round_options = RoundOptions(
            options.bounds,
            barrier.drained,
            now_ms,
            Digests.of(home, name, stores.checksums.columns) if stores.checksums else None,
            partial(sample, stores, partial(open_embedder, settings=settings, home=home, name=name, progress=say)),
            full=options.full,
            restart=options.restart,
            continuous=options.cpu_share is not None,
            throttle=Throttle(options.cpu_share),
        )
        yield stores, round_options, publisher


async def verify_collection(
    settings: Settings,
    home: Path,
    name: str,
    options: VerifyOptions,
    *,
    say: Callable[[str], None] = _nothing,
    progress: Progress = _nothing,
) -> Verification:
    """Verify one collection once; `progress` gets the result as it grows. Raises as `open_stores` and `verify`."""
    async with _opened(settings, home, name, options, say) as (stores, round_options, publisher):
        return await verify(stores, round_options, publisher, progress=progress)


async def verify_rounds(
    settings: Settings, home: Path, name: str, options: VerifyOptions, *, most: int | None, say: Callable[[str], None]
) -> AsyncIterator[Verification]:
    """Verify one collection round after round and yield each result. If `most` is None, the rounds never end.

    A round that fails because a store does not answer is yielded as unknown. The next one begins after a pause.
    """
    number = 0
    while most is None or number < most:
        try:
            async with _opened(settings, home, name, options, say) as (stores, round_options, publisher):
                async for run in rounds(stores, round_options, publisher, most=most, number=number + 1):
                    number = run.round
                    yield run
        except TransientError as error:
            if not number:
                raise
            # The columns changed, and the table or a store cannot be reopened right now.
            number += 1
            yield Verification(name, number, now_ms(), now_ms(), unknown=1, errors=[str(error)])
            await asyncio.sleep(AFTER_FAILURE_S)
