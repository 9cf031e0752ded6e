"""Reads the ledger once for all listeners that are up to date, and keeps the newest events for them.

It reads while there are listeners, and goes no further than what no running transaction may still precede. A listener
has no queue: it takes what it has not had from the newest events, and if they are gone by then, from the ledger.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

import msgspec

from gapless.console.feed import messages
from gapless.console.feed.limits import Closing, FeedLimits
from gapless.console.feed.messages import FeedRequest, Item
from gapless.ledger import feed
from gapless.ledger.engine import StoreError
from gapless.ledger.feed import NOTHING_KNOWN, Position, Settled
from gapless.operations.principals import Principal
from gapless.runtime import Runtime

AFTER_FAILURE_S = 1.0
LISTEN_AGAIN_S = 5.0
FILTERS_KEPT = 4
"""Most different filters for which the messages of a page are kept."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerAccess:
    """Who listens, and how it is found out whether they still may."""

    key: object
    """What they have presented: listeners with the same are checked together."""
    principal: Principal
    check: Callable[[], Awaitable[Principal | None]]
    """Returns who that is now; None: nobody any more. Raises `StoreError`."""


class FeedListener(Protocol):
    """What the hub knows of a listener."""

    request: FeedRequest
    access: ListenerAccess

    def end(self, why: Closing) -> None:
        """Let its connection end."""

    def offer(self, again: Sequence[Item]) -> None:
        """Tell it of events that came once more. They may be dropped."""


class FeedFull(Exception):
    """There are as many listeners as may be."""


@dataclass(slots=True, kw_only=True)
class Page:
    """Some events in order of record, and the messages that were made of them."""

    items: Sequence[Item]
    last: Position
    payloads: bool
    """The payloads were read too."""
    size: int
    frames: dict[object, list[tuple[str, Position]]] = field(default_factory=dict)
    """{what is wanted: the messages}, while the page is new: most listeners want the same."""


class Hub:
    """The stream of one process."""

    def __init__(self, runtime: Runtime, limits: FeedLimits = FeedLimits()) -> None:  # noqa: B008 - frozen
        self.limits = limits
        self.runtime = runtime
        self.position: Position | None = None
        """After the newest event that was read; None: not known yet."""
        self.first_page = 0
        """The number of the oldest page that is kept."""
        self.reading = asyncio.Semaphore(limits.reads)
        self._pages: deque[Page] = deque()
        self._size = self._count = 0
        self._known: Settled = NOTHING_KNOWN
        self._sessions: set[FeedListener] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._read_us: int | None = None
        """When all that was recorded had been read, by elapsed time."""
        self._read_at: datetime | None = None
        self._is_failing = False
        self._again: deque[int] = deque(maxlen=feed.AGAIN_AT_ONCE)
        """The seqs of events that came once more, and were not told of yet."""
        runtime.metrics.stream_clients.set_function(lambda: len(self._sessions))
        runtime.metrics.stream_lag.set_function(self._lag_s)

    # --- listeners ----------------------------------------------------------------------------------------------------

    def join(self, session: FeedListener) -> None:
        """Take a listener in. Raises `FeedFull`."""
        if self.is_full:
            self.runtime.metrics.stream_closed.labels("full").inc()
            raise FeedFull
        self._sessions.add(session)
        if not self._tasks:
            self._known, self.position = NOTHING_KNOWN, None
            self._read_at, self._read_us = None, self.runtime.elapsed_us
            self._again.clear()
            self._tasks = [asyncio.create_task(each()) for each in (self._read, self._recheck, self._hear)]

    def leave(self, session: FeedListener) -> None:
        """Forget a listener. Nothing is read after the last one."""
        self._sessions.discard(session)
        if not self._sessions:
            for task in self._tasks:
                task.cancel()
            self._tasks = []
            self.first_page += len(self._pages)
            self._pages.clear()
            self._size = self._count = 0

    @property
    def is_full(self) -> bool:
        """Return True if no further listener may join."""
        return len(self._sessions) >= self.limits.clients

    @property
    def next_page(self) -> int:
        """The number of the page that comes next."""
        return self.first_page + len(self._pages)

    @property
    def read_at(self) -> datetime | None:
        """The time until which all that was recorded has been read; None: not known."""
        return self._read_at

    def page(self, number: int) -> Page:
        """Return a page that is kept."""
        return self._pages[number - self.first_page]

    def frames_of(self, page: Page, request: FeedRequest, after: Position) -> list[tuple[str, Position]]:
        """Return the messages of a page that a listener is sent that has all up to `after`."""
        cut = self.limits.frame_bytes
        if request.since_us is not None or (page.items and page.items[0].position.seq <= after.seq):
            items = (each for each in page.items if each.position.seq > after.seq and request.wants(each))
            return list(messages.frames(items, cut, payload=request.payload))
        found = page.frames.get(request.filter)
        if found is None:
            wanted = (each for each in page.items if request.wants(each))
            found = list(messages.frames(wanted, cut, payload=request.payload))
            if len(page.frames) < FILTERS_KEPT:
                page.frames[request.filter] = found
        return found

    async def wait(self, within_s: float) -> None:
        """Return when something has changed, or after that time."""
        changed = self._changed
        try:
            async with asyncio.timeout(within_s):
                await changed.wait()
        except TimeoutError:
            return

    async def read_items(self, after: Position, up_to: int, request: FeedRequest) -> tuple[list[Item], Position]:
        """Return the next events that are wanted, and the position up to which they were read. Raises `StoreError`."""
        async with self.reading:
            rows = await self.runtime.read(feed.page, after.seq, up_to, self.limits.page_events)
            items = [item for item in map(messages.encode, rows) if request.wants(item)]
            last = rows[-1].position if rows else after
            if request.payload and items:
                count = await self._fill(items)
                if count < len(items):
                    items, last = items[:count], items[count - 1].position
            return items, last

    async def read_again(self, request: FeedRequest) -> AsyncIterator[Item]:
        """Yield the events that are asked for by key, one by one. Raises `StoreError`."""
        anew = replace(request, since_us=None)
        for event in await self.runtime.read(feed.of_keys, request.keys):
            items = [messages.encode(event)]
            if anew.wants(items[0]):
                if request.payload:
                    async with self.reading:
                        await self._fill(items)
                yield items[0]

    async def _fill(self, items: list[Item]) -> int:
        """Put the payloads of the first items into them, as many as may be read at once; return how many."""
        ids = [item.payload_id for item in items if item.payload_id is not None]
        count, found = await self.runtime.read(feed.payloads, ids, self.limits.page_bytes)
        read, done = set(ids[:count]), 0
        for at, item in enumerate(items):
            if item.payload_id is not None and item.payload_id not in read:
                break
            body, headers = found.get(item.payload_id or 0, (None, None))
            shown = messages.encode_payload(body, self._shown_headers(item.source, headers), self._mask(item.source))
            items[at], done = replace(item, payload=shown), at + 1
        return done

    def _mask(self, source: str) -> tuple[str, ...]:
        return self.runtime.sources[source].mask if source in self.runtime.sources else ()

    def _shown_headers(self, source: str, stored: str | None) -> dict[str, str]:
        """Return the kept headers that say what a webhook is. Its signature is nobody's business."""
        if stored is None or source not in self.runtime.sources:
            return {}
        known = self.runtime.sources[source].provider.capabilities
        shown = frozenset((*known.carried_headers, *known.optional_headers))
        kept = msgspec.json.decode(stored, type=dict[str, str])
        return {name: value for name, value in kept.items() if name in shown}

    # --- the reader ---------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            wait_s = self.limits.poll_s
            try:
                await self._read_on()
                await self._read_again()
                self._is_failing = False
                if self._known.writers:
                    wait_s = self.limits.soon_s
            except StoreError as error:
                wait_s = AFTER_FAILURE_S
                if not self._is_failing:
                    self._is_failing = True
                    log.warning("stream_not_read", extra={"error": str(error)})
            except Exception:
                wait_s = AFTER_FAILURE_S
                if not self._is_failing:
                    self._is_failing = True
                    log.exception("stream_failed")
            await asyncio.sleep(wait_s)

    async def _read_on(self) -> None:
        """Read what is settled, page by page."""
        now, now_us = self.runtime.clock(), self.runtime.elapsed_us
        self._known = await self.runtime.read(feed.settled, self._known)
        up_to = self._known.seq
        if up_to is None:
            return
        if self.position is None:
            self.position = await self.runtime.read(feed.position_at, up_to)
            self._tell()
        if self._known.newest is not None and self._known.newest < self.position.seq:
            self._begin_anew()
            return
        while self.position.seq < up_to and await self._read_page(self.position, up_to):
            pass
        if not self._known.writers:
            self._read_at, self._read_us = now, now_us

    async def _read_page(self, after: Position, up_to: int) -> bool:
        """Read one page for all; return False if there is nothing more."""
        payloads = any(each.request.payload for each in self._sessions)
        items, last = await self.read_items(after, up_to, FeedRequest(payload=payloads))
        if not items:
            return False
        self._publish(Page(items=items, last=last, payloads=payloads, size=sum(item.size for item in items)))
        return True

    def _publish(self, page: Page) -> None:
        self.position = page.last
        for earlier in list(self._pages)[-2:]:
            earlier.frames.clear()
        self._pages.append(page)
        self._size, self._count = self._size + page.size, self._count + len(page.items)
        most_bytes, most = self.limits.buffer_bytes, self.limits.buffer_events
        while len(self._pages) > 1 and (self._size > most_bytes or self._count > most):
            oldest = self._pages.popleft()
            self.first_page += 1
            self._size, self._count = self._size - oldest.size, self._count - len(oldest.items)
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _begin_anew(self) -> None:
        """End all sessions: the ledger has fewer events than were sent, so it is another one, or a restored one."""
        log.warning("stream_of_another_ledger")
        for session in list(self._sessions):
            session.end(Closing.REPLACED)
        self._known, self.position = NOTHING_KNOWN, None

    def _lag_s(self) -> float:
        """Return the seconds since all that was recorded had been read; 0 while nobody listens."""
        if not self._sessions or self._read_us is None:
            return 0.0
        return max(self.runtime.elapsed_us - self._read_us, 0) / 1_000_000

    # --- what comes once more ---

    async def _hear(self) -> None:
        """Listen for events that come once more. What is said while the connection is lost is not made up for."""
        while True:
            try:
                await self.runtime.store.listen(feed.AGAIN_CHANNEL, self._note_again)
            except StoreError as error:
                log.warning("stream_hears_nothing", extra={"error": str(error)})
            await asyncio.sleep(LISTEN_AGAIN_S)

    def _note_again(self, seqs: str) -> None:
        self._again.extend(map(int, seqs.split(",")))

    async def _read_again(self) -> None:
        """Offer what came once more to all listeners."""
        if not self._again:
            return
        seqs = sorted(set(self._again))
        self._again.clear()
        items = [messages.encode(event) for event in await self.runtime.read(feed.of_seqs, seqs)]
        if items and any(each.request.payload for each in self._sessions):
            async with self.reading:
                items = items[: await self._fill(items)]
        for session in list(self._sessions):
            session.offer(items)
        self._tell()

    # --- tokens -------------------------------------------------------------------------------------------------------

    async def _recheck(self) -> None:
        """End the sessions whose token opens the stream no more."""
        while True:
            await asyncio.sleep(self.limits.recheck_s)
            checked: dict[object, Principal | None] = {}
            for session in list(self._sessions):
                if session.access.key not in checked:
                    try:
                        checked[session.access.key] = await session.access.check()
                    except StoreError:
                        continue  # not known now; nothing can be read either
                principal = checked[session.access.key]
                if principal != session.access.principal:
                    session.end(Closing.TOKEN)
