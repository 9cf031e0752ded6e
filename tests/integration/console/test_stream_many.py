"""Many listeners at once, one of them slow and one that comes and goes: each one's set is complete, memory bounded."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from streams import BRISK, WAIT_S, address, record, until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gapless.connections.limits import ConnectionLimits
from gapless.console.feed.hub import Hub

pytestmark = pytest.mark.anyio
ROOM = ConnectionLimits(most=600, per_address=450)
LIMITS = replace(BRISK, clients=250, buffer_events=2000, buffer_bytes=1 << 20, send_within_s=2.0, poll_s=0.05)
SLOW = ("gapless_stream_closed_total", {"reason": "slow"})
BUFFER_BYTES = 2 * (64 << 10)
"""What uvicorn holds for one listener: asyncio's high-water mark, and one message."""


async def small_socket(client: Any) -> socket.socket:
    """A connection of which the kernel keeps little that is not read."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
    raw.setblocking(False)  # noqa: FBT003 - its only argument
    await asyncio.get_running_loop().sock_connect(raw, (client.base_url.host, client.base_url.port))
    return raw


class Reader:
    """A listener that keeps the keys that it got, and goes on with its cursor whenever it is cut."""

    def __init__(
        self, client: Any, *, stalls_until: Callable[[], bool] = lambda: True, leaves_after_s: float | None = None
    ) -> None:
        self.client, self.stalls_until, self.leaves_after_s = client, stalls_until, leaves_after_s
        self.keys: list[str] = []
        self.cursor = ""
        self.ready = asyncio.Event()
        self.connections = 0
        self.codes: list[int] = []

    async def run(self, last: str) -> None:
        """Read until the event `last`."""
        while not self._has(last):
            query = {"after": self.cursor} if self.cursor else {}
            raw = await small_socket(self.client) if not self.stalls_until() else None
            async with connect(
                address(self.client, **query), sock=raw, proxy=None, max_queue=1, compression=None
            ) as opened:
                self.connections += 1
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.leaves_after_s):
                        await self._read(opened, last)

    async def _read(self, opened: Any, last: str) -> None:
        try:
            while not self._has(last):
                got = msgspec.json.decode(await opened.recv())
                self.keys += [each["key"] for each in got.get("events", ())]
                self.cursor = got["cursor"]
                self.ready.set()
                await until(self.stalls_until)
        except ConnectionClosed as closed:
            self.codes.append(closed.rcvd.code if closed.rcvd else 1006)

    def _has(self, last: str) -> bool:
        return bool(self.keys) and self.keys[-1] == last


async def follow_all(console: Any, listen: Any, *, listeners: int, events: int, at_once: int) -> list[Reader]:
    """Let so many follow while so many events are recorded; return what they got."""
    keys, hub, most = [f"e{n:05d}" for n in range(events)], Hub(console.context.runtime, LIMITS), 0
    async with listen(hub=hub, connections=ROOM) as client:
        slow = Reader(client, stalls_until=lambda: (console.metrics.registry.get_sample_value(*SLOW) or 0) >= 1)
        restless = Reader(client, leaves_after_s=1.0)
        readers = [slow, restless, *(Reader(client) for _ in range(listeners - 2))]
        running = [asyncio.create_task(each.run(keys[-1])) for each in readers]
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*(each.ready.wait() for each in readers))
        for at in range(0, events, at_once):
            await record(console, *keys[at : at + at_once], type="x" * 500)
            await asyncio.sleep(0)
            sizes = [each.transport.get_write_buffer_size() for each in console.connections._all]
            most = max(most, *sizes)
            assert hub._size <= LIMITS.buffer_bytes + (256 << 10)
            assert hub._count <= LIMITS.buffer_events + LIMITS.page_events
        async with asyncio.timeout(4 * WAIT_S):
            await asyncio.gather(*running)
    assert most <= BUFFER_BYTES
    assert [each.keys for each in readers if each.keys != keys] == []
    return readers


async def test_each_of_several_listeners_has_all_events(console: Any, listen: Any) -> None:
    slow, *_ = await follow_all(console, listen, listeners=12, events=2500, at_once=250)
    assert slow.codes == [4008]


@pytest.mark.slow
async def test_each_of_two_hundred_listeners_has_all_events(console: Any, listen: Any) -> None:
    slow, restless, *others = await follow_all(console, listen, listeners=200, events=6000, at_once=100)
    assert len(others) == 198
    assert restless.connections > 1
    assert slow.codes == [4008]
