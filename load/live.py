"""Changes to the table of rows by an application and by producers, while something else is measured."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from load.arrivals import Schedule, open_loop
from load.path import submission
from load.place import ROWS, Place

RATE_S = 20.0
_LONGEST_S = 3600.0
_CHANGED = f"UPDATE {ROWS} SET body = $2 WHERE id = $1"
_DELETED = f"DELETE FROM {ROWS} WHERE id = $1"
# A new row, with the embedding of another row.
_ADDED = f"INSERT INTO {ROWS} SELECT max(id) + 1, $2, (SELECT embedding FROM {ROWS} WHERE id = $1) FROM {ROWS}"


@asynccontextmanager
async def live_writes(at: Place, texts: Sequence[str], rows: int) -> AsyncIterator[Counter[str]]:
    """Change, delete and add rows by SQL and send documents, 20 a second in total. Yield the counts of each so far."""
    done: Counter[str] = Counter()
    rng = random.Random(1)
    one_statement = asyncio.Lock()

    async def send(number: int, _: float) -> None:
        row, text = rng.randint(1, rows), texts[number % len(texts)][:300]
        kind = ("changed", "deleted", "added", "sent")[number % 4]
        if kind == "sent":
            await at.bus.publish([submission(ROWS, str(row), text, kind=None)])
        else:
            async with one_statement:
                match kind:
                    case "changed":
                        await at.sql.execute(_CHANGED, row, text)
                    case "deleted":
                        await at.sql.execute(_DELETED, row)
                    case _:
                        await at.sql.execute(_ADDED, row, text)
        done[kind] += 1

    writing = asyncio.create_task(open_loop(Schedule(RATE_S, _LONGEST_S), send), name="live writes")
    try:
        yield done
    finally:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
