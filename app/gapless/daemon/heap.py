"""Keeps Python's garbage collector away from requests: a full collection of the loaded program takes some 90 ms.

What lives as long as the process is left out of collections once it is there, and full ones, which then look only at
what came since, are made by the clock and not by the number of objects.
"""

import asyncio
import gc
from datetime import timedelta

YOUNG, MIDDLE = 2_000, 10
"""New objects before a collection of the youngest, and collections of those before one of the next generation."""
NEVER = 1_000_000
COLLECT_EVERY = timedelta(minutes=1)


def settle_heap() -> None:
    """Leave everything that exists now out of collections. For a process that is ready and goes on to serve."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, NEVER)


async def collect_now_and_then(every: timedelta = COLLECT_EVERY) -> None:
    """Make a full collection from time to time. Runs until cancelled."""
    while True:
        await asyncio.sleep(every.total_seconds())
        gc.collect()
