"""Listeners of the live stream, and events for them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gapless.console.feed.limits import FeedLimits
from gapless.domain import Via, to_us
from gapless.ledger.recorder import Sighting
from gapless_reconcilers.kit.contract import RemoteEvent

WAIT_S = 30
BRISK = FeedLimits(poll_s=0.01, soon_s=0.005, heartbeat_s=30)


@dataclass
class Follower:
    """One listener: what it got, in order."""

    socket: ClientConnection
    cursor: str = ""
    hello: Any = None
    heartbeats: int = 0

    async def message(self) -> Any:
        async with asyncio.timeout(WAIT_S):
            got = json.loads(await self.socket.recv())
        self.cursor = got["cursor"]
        self.heartbeats += got["message"] == "heartbeat"
        return got

    async def events(self, count: int) -> list[Any]:
        """The next events; exactly so many come."""
        found: list[Any] = []
        while len(found) < count:
            got = await self.message()
            found += got.get("events", [])
        assert len(found) == count
        return found

    async def keys(self, count: int) -> list[str]:
        return [each["key"] for each in await self.events(count)]

    async def closed(self) -> tuple[int, str]:
        """The close code and the reason, whatever comes before."""
        async with asyncio.timeout(WAIT_S):
            with suppress(ConnectionClosed):
                while True:
                    await self.socket.recv()
            await self.socket.wait_closed()
        return self.socket.close_code or 0, self.socket.close_reason or ""


def address(client: Any, **query: object) -> str:
    base = str(client.base_url).replace("http", "ws", 1).rstrip("/")
    return f"{base}/api/v1/stream?{urlencode(query, doseq=True)}"


@asynccontextmanager
async def following(client: Any, headers: dict[str, str] | None = None, **query: object) -> AsyncIterator[Follower]:
    async with connect(address(client, **query), additional_headers=headers, proxy=None, max_size=None) as opened:
        follower = Follower(opened)
        follower.hello = await follower.message()
        assert follower.hello["message"] == "hello"
        yield follower


async def record(console: Any, *keys: str, payload: bytes = b"{}", **changes: Any) -> None:
    """Record events as a webhook each, in one transaction."""
    options = {"source": "acme", "type": "invoice.paid", "via": Via.WEBHOOK, **changes}
    stream_id = options.get("stream_id") or await console.stream_id(options["source"])
    seen = [
        Sighting(
            source=console.source(options["source"]),
            stream_id=stream_id,
            event=RemoteEvent(
                key=key, type=options["type"], occurred_at=console.now[0] - timedelta(seconds=90), payload=payload
            ),
            via=options["via"],
            seen_us=to_us(console.now[0]),
            body=payload if options["via"] is Via.WEBHOOK else None,
            headers=options.get("headers"),
            cause=options.get("cause"),
            awaited_until_us=options.get("awaited_until_us"),
        )
        for key in keys
    ]
    await console.context.runtime.write(console.context.runtime.writer.recorder.store, sightings=seen)


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.005)
