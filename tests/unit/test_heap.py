"""A daemon that is ready leaves what lives on out of collections, and still frees what does not."""

import asyncio
import gc
import subprocess
import sys
import weakref
from datetime import timedelta

from gapless.daemon.heap import collect_now_and_then

SETTLED = """
import gc
from gapless.daemon.heap import settle_heap
settle_heap()
print(gc.get_freeze_count() > 10_000, gc.get_threshold()[2] > 100_000, len(gc.get_objects(2)) < 1_000)
"""


class Node:
    """An object that only a full collection frees: it holds itself."""

    def __init__(self) -> None:
        self.itself = self


def test_what_exists_when_the_daemon_is_ready_is_left_out_of_collections() -> None:
    done = subprocess.run([sys.executable, "-c", SETTLED], capture_output=True, text=True, check=True)
    assert done.stdout == "True True True\n"


def test_full_collections_are_made_by_the_clock() -> None:
    async def run() -> None:
        collecting = asyncio.create_task(collect_now_and_then(timedelta(milliseconds=1)))
        while node() is not None:
            await asyncio.sleep(0.001)
        collecting.cancel()

    node = weakref.ref(Node())
    gc.disable()
    try:
        asyncio.run(run())
    finally:
        gc.enable()
    assert node() is None
