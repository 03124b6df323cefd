"""The part of `TaskStore` that both databases share: its table's name, and how a lock is held.

No statement is built here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from hashlib import blake2b

from connectors.errors import Refused, TransientError

TASKS_TABLE = "crossfade_tasks"
# How often to check that the connection that holds a lock is still alive.
_LOOK_S = 5.0
_RETRY_S = 1.0
_GIVE_BACK_S = 5.0

Alive = Callable[[], Awaitable[None]]
"""Raises if the connection, and with it the lock, is gone."""
Take = Callable[[], AbstractAsyncContextManager[Alive]]
"""Takes the lock on a connection of its own. Raises Refused if another process holds it."""


def lock_number(schema: str, collection: str, task: str) -> int:
    """Return the number of a task's lock (64 bits, signed), the same in every process."""
    names = "\0".join((TASKS_TABLE, schema, collection, task))
    return int.from_bytes(blake2b(names.encode(), digest_size=8).digest(), "big", signed=True)


@asynccontextmanager
async def held(take: Take, task: str) -> AsyncIterator[None]:
    """Hold a lock while the block runs. If the connection breaks, replace it and take the lock again.

    Raises Refused if another process holds the lock. This can also happen in the middle of the block, if another
    process took the lock after a break: the block is then cancelled. Raises StoreUnavailable if the database does not
    answer at the start.
    """
    taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended = asyncio.Event()
    try:
        async with asyncio.timeout(None) as limit:
            keeper = asyncio.create_task(_keep(take, taken, ended, limit))
            try:
                await taken
                yield
            finally:
                ended.set()
                await asyncio.wait({keeper}, timeout=_GIVE_BACK_S)
                keeper.cancel()
    except TimeoutError:
        if not limit.expired():
            raise
        raise Refused(f"{task}: another process took the task over while the database did not answer") from None


async def _keep(take: Take, taken: asyncio.Future[None], ended: asyncio.Event, limit: asyncio.Timeout) -> None:
    while not ended.is_set():
        try:
            async with take() as alive:
                if not taken.done():
                    taken.set_result(None)
                while not await _set_within(ended, _LOOK_S):
                    await alive()
        except TransientError as error:
            if not taken.done():
                taken.set_exception(error)
                return
            await _set_within(ended, _RETRY_S)
        except Exception as error:
            if not taken.done():
                taken.set_exception(error)
            elif not ended.is_set():
                limit.reschedule(asyncio.get_running_loop().time())
            return


async def _set_within(event: asyncio.Event, limit_s: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), limit_s)
    return event.is_set()
