"""Continuous verification: one throttled round after another, so that the proof stays recent.

A round that fails because a store does not answer leaves its proof unchanged, and the proof ages. The next round
continues.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

from connectors.errors import TransientError
from migration.collection import CollectionStores
from migration.verify.options import RoundOptions
from migration.verify.ports import DifferenceSink
from migration.verify.result import Verification
from migration.verify.run import verify

# A round that ends at once is not followed by another at once: little would have changed.
_PAUSE_S = 1.0
AFTER_FAILURE_S = 5.0


async def rounds(
    stores: CollectionStores,
    options: RoundOptions,
    sink: DifferenceSink,
    *,
    most: int | None,
    number: int = 1,
    pause_s: float = _PAUSE_S,
) -> AsyncIterator[Verification]:
    """Yield the result of each round, at most `most` of them (None: without end).

    Also ends if the columns of the table changed, because the table must then be opened again. The first round has the
    given `number`. Raises Refused if another process verifies the collection, Misconfigured.
    """
    number -= 1
    while most is None or number < most:
        number += 1
        try:
            run = await verify(stores, options, sink, number=number)
        except TransientError as error:
            run = Verification(stores.name, number, options.clock(), options.clock(), unknown=1, errors=[str(error)])
            await asyncio.sleep(AFTER_FAILURE_S)
        options = replace(options, restart=False)
        yield run
        with suppress(TransientError):
            if await stores.table.altered() is not None:
                return
        await options.throttle.pause()
        if most is None or number < most:
            await asyncio.sleep(pause_s)
