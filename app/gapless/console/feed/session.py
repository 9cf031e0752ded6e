"""One listener of the live stream, from its first message to its close."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

from gapless.console.feed import messages
from gapless.console.feed.hub import Hub, ListenerAccess
from gapless.console.feed.limits import Closing
from gapless.console.feed.messages import FeedRequest, Item
from gapless.ledger import feed
from gapless.ledger.engine import StoreError
from gapless.ledger.feed import Position

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AGAIN_KEPT = 100
"""Most events that came once more and wait for a listener."""
AGAIN_S = 1.0
"""Time after which a read that failed is tried again."""


class Session:
    """One listener. `run` serves it until it goes, or until `end`."""

    def __init__(self, hub: Hub, request: FeedRequest, access: ListenerAccess, receive: Receive, send: Send) -> None:
        self.request = request
        self.access = access
        self._hub = hub
        self._receive = receive
        self._send = send
        self._again: deque[Item] = deque(maxlen=AGAIN_KEPT)
        self._ended: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()

    def end(self, why: Closing) -> None:
        """Let the session end."""
        if not self._ended.done():
            self._ended.set_result(why)

    def offer(self, again: Sequence[Item]) -> None:
        """Send events that came once more, when there is time; the oldest are dropped if there is none."""
        self._again.extend(item for item in again if replace(self.request, since_us=None).wants(item))

    async def run(self) -> None:
        """Serve the listener, whose connection is open."""
        speaking, hearing = asyncio.create_task(self._speak()), asyncio.create_task(self._hear())
        try:
            waited: tuple[asyncio.Future[Any], ...] = (speaking, hearing, self._ended)
            done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            closing = self._ended.result() if self._ended.done() else _result(speaking if speaking in done else hearing)
        finally:
            for task in (speaking, hearing):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task
        reason = "gone" if closing is None else closing.label
        self._hub.runtime.metrics.stream_closed.labels(reason).inc()
        if closing is not None:
            with suppress(OSError):
                await self._send({"type": "websocket.close", "code": closing.code, "reason": closing.reason})

    async def _hear(self) -> Closing | None:
        """Return when the listener goes, or says too much. What it says is not read."""
        for _ in range(self._hub.limits.messages):
            if (await self._receive())["type"] == "websocket.disconnect":
                return None
        return Closing.TALKS

    async def _speak(self) -> Closing | None:
        try:
            position = await self._begin()
            if position is None:
                return Closing.NOT_READY
            await self._put(messages.hello(position, self._hub.runtime.clock(), self._hub.limits.heartbeat_s))
            if self.request.keys:
                async for item in self._hub.read_again(self.request):
                    await self._put(messages.again([item], position, payload=self.request.payload))
            async for text in self._follow(position):
                await self._put(text)
        except TimeoutError:
            return Closing.SLOW
        except StoreError:
            return Closing.NOT_READY
        except OSError:  # uvicorn's sign that the listener has gone
            return None
        return None

    async def _put(self, text: str) -> None:
        """Send one message. Raises `TimeoutError` if the listener does not take it."""
        async with asyncio.timeout(self._hub.limits.send_within_s):
            await self._send({"type": "websocket.send", "text": text})

    async def _begin(self) -> Position | None:
        """Return the position to begin after; None: it cannot be known now."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._hub.limits.start_within_s
        while self._hub.position is None:
            if loop.time() >= until:
                return None
            await self._hub.wait(until - loop.time())
        if self.request.after is not None:
            return self.request.after
        if self.request.since_us is None:
            return self._hub.position
        with suppress(StoreError):
            return await self._hub.runtime.read(feed.position_since, self.request.since_us)
        return None

    async def _follow(self, position: Position) -> AsyncIterator[str]:
        """Yield the messages of all events after `position`, and heartbeats."""
        hub, request, number = self._hub, self.request, None
        now = asyncio.get_running_loop().time
        beat_at = now() + hub.limits.heartbeat_s
        while True:
            if now() >= beat_at:
                yield messages.heartbeat(position, hub.read_at if number == hub.next_page else None)
                beat_at = now() + hub.limits.heartbeat_s
            if number is None and (hub.position is None or position.seq >= hub.position.seq):
                number = hub.next_page  # up to date: from here on with all others
            texts: Sequence[str] = ()
            while self._again:
                yield messages.again([self._again.popleft()], position, payload=request.payload)
            if number is None:
                texts, position = await self._read_behind(position)
            elif number < hub.first_page or (number < hub.next_page and self._lacks_payloads(number)):
                number = None  # what comes next is not kept: read it from the ledger
            elif number < hub.next_page:
                page = hub.page(number)
                texts = [text for text, _ in hub.frames_of(page, request, position)]
                position, number = max(position, page.last, key=lambda each: each.seq), number + 1
            else:
                await hub.wait(beat_at - now())
            for text in texts:
                yield text
                beat_at = now() + hub.limits.heartbeat_s

    async def _read_behind(self, position: Position) -> tuple[Sequence[str], Position]:
        """Return messages of what the ledger has next, for a listener that is behind, and the position after it."""
        hub, newest = self._hub, self._hub.position or position
        try:
            items, last = await hub.read_items(position, newest.seq, self.request)
        except StoreError:
            await asyncio.sleep(AGAIN_S)
            return (), position
        made = messages.frames(items, hub.limits.frame_bytes, payload=self.request.payload)
        return [text for text, _ in made], last if last.seq > position.seq else newest

    def _lacks_payloads(self, number: int) -> bool:
        return self.request.payload and not self._hub.page(number).payloads


def _result(task: asyncio.Task[Closing | None]) -> Closing | None:
    if task.exception() is not None:
        return Closing.FAILED
    return task.result()
