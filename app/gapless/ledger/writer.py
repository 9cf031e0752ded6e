"""The one writer of a process: commits webhooks first, in batches, and all other work one by one between them.

A webhook's caller gets its result only after the commit that contains it. There is no batching window:
the webhooks that arrive during one commit are the next batch. A caller that must answer by some time is told then that
it was not committed in time (`NotInTime`), whatever the store does meanwhile.

What a lost connection did is never guessed: a commit without an answer is looked up, and what did not take effect is
done again once, on a new connection and under a new writer slot.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from math import inf
from typing import Any, Concatenate, ParamSpec, TypeVar

import stamina
from sqlalchemy import Connection

from gapless.ledger.engine import (
    BadData,
    Conflict,
    ConnectionLost,
    Store,
    StoreError,
    StoreUnavailable,
    UncertainCommit,
    bind,
)
from gapless.ledger.recorder import Recorder, Webhook
from gapless.metrics import Metrics

P = ParamSpec("P")
T = TypeVar("T")
Work = Callable[[Connection], T]
BATCH = 512
"""Most webhooks in one commit."""
RETRIES = stamina.AsyncRetryingCaller(attempts=8, timeout=5, wait_initial=0.005, wait_max=0.5)
"""Retries a transaction that met a conflict."""
STUCK_S = 60.0
"""A transaction that takes longer than this does not end by itself; only a restart helps."""
SLOW_S = 5.0
"""Time after which a transaction that is under way counts as a failure of the store."""
LOOK_UP_WITHIN_S = 10.0
"""Time in which the outcome of a commit without an answer is looked up, while the database may be away."""
LOOK_UP_EVERY_S = 0.25
EXPIRE_EVERY_S = 0.05
"""Callers that must answer within this time of each other are told together."""


class QueueFull(StoreUnavailable):
    """More webhooks wait for a commit than the configured limit allows."""


class Unstorable(StoreError):
    """This webhook can never be stored; the rest of its batch was."""


class NotInTime(StoreUnavailable):
    """The webhook was not committed by the time at which it must be answered.

    `recorded` is None if it was withdrawn and will not be committed. Otherwise its commit is under way, and `recorded`
    returns what the commit did, or raises.
    """

    def __init__(self, recorded: asyncio.Future[int] | None) -> None:
        under_way = "its commit is still under way" if recorded else "its commit had not begun"
        super().__init__(f"the webhook was not committed in time; {under_way}")
        self.recorded = recorded


class _Entry:
    """A webhook that waits for its commit."""

    __slots__ = ("answer_by", "future", "size", "webhook")

    def __init__(self, webhook: Webhook, size: int, answer_by: float, future: asyncio.Future[int]) -> None:
        self.webhook = webhook
        self.size = size
        self.answer_by = answer_by
        self.future = future


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFailure:
    """The writer cannot commit: why, and since when by the monotonic clock."""

    error: StoreError
    since: float

    @property
    def lasts(self) -> timedelta:
        """Return the time since it began."""
        return timedelta(seconds=time.monotonic() - self.since)


class Writer:
    """Commits for one process. `run` is its loop; `close` lets it finish the submitted work, then stops it."""

    def __init__(
        self,
        store: Store,
        recorder: Recorder,
        metrics: Metrics,
        *,
        queue_max: int,
        queue_max_bytes: int,
        take_slot: Work[int] | None = None,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._metrics = metrics
        self._queue_max = queue_max
        self._queue_max_bytes = queue_max_bytes
        self._take_slot = take_slot
        """Takes a new writer slot after a connection was lost; None: the slot stays."""
        self._needs_slot = False
        self._queued_bytes = 0
        self._webhooks: deque[_Entry] = deque()
        self._batch: list[_Entry] = []
        self._work: deque[tuple[Work[Any], asyncio.Future[Any]]] = deque()
        self._idle_work: deque[tuple[Work[Any], asyncio.Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._running = False
        self._began: float | None = None
        self._failure: WriteFailure | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def recorder(self) -> Recorder:
        """The recorder, for work that records events."""
        return self._recorder

    def record(self, webhook: Webhook, size: int, answer_by: float = inf) -> asyncio.Future[int]:
        """Queue a webhook of `size` bytes; the future returns how many of its events were new, once they are durable.

        `answer_by` is a time of the event loop's clock. Raises `QueueFull` at once. The future raises `Unstorable`,
        `StoreUnavailable`, or `NotInTime` at that time.
        """
        if self._closing or len(self._webhooks) >= self._queue_max or self._queued_bytes + size > self._queue_max_bytes:
            raise QueueFull(f"{len(self._webhooks)} webhooks ({self._queued_bytes} bytes) wait to be committed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        self._webhooks.append(_Entry(webhook, size, answer_by, future))
        self._queued_bytes += size
        self._wake.set()
        if answer_by != inf and (self._timer is None or answer_by < self._timer.when()):
            self._watch(loop, answer_by)
        return future

    async def submit(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, …)` in a transaction of its own, after the webhooks that wait now. Raises `StoreError`.

        Keep it short: at most a page. `work` may run again after a conflict, so it must have no other side effects.
        """
        return await self._queue(self._work, bind(work, *args, **kwargs))

    async def submit_idle(
        self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `submit`, but only when nothing else waits: for work that a stranger can cause."""
        return await self._queue(self._idle_work, bind(work, *args, **kwargs))

    async def _queue(self, queue: deque[tuple[Work[Any], asyncio.Future[Any]]], work: Work[T]) -> T:
        if self._closing:
            raise StoreUnavailable("shutting down")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        queue.append((work, future))
        self._wake.set()
        return await future

    async def run(self) -> None:
        """Commit until `close`. Never raises: each caller gets its own error."""
        self._running = True
        try:
            await self._commit_until_closed()
        finally:
            self._running = False

    async def _commit_until_closed(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._webhooks or self._work or self._idle_work:
                if self._webhooks:
                    await self._commit_webhooks()
                if self._work:
                    await self._commit_work(self._work.popleft())
                elif self._idle_work and not self._webhooks:
                    await self._commit_work(self._idle_work.popleft())
            if self._closing:
                return

    def close(self) -> None:
        """Accept nothing more; `run` returns when everything submitted is committed."""
        self._closing = True
        self._wake.set()

    @property
    def is_alive(self) -> bool:
        """True while `run` is under way and no transaction has been under way for longer than `STUCK_S`."""
        began = self._began
        return self._running and (began is None or time.monotonic() - began < STUCK_S)

    @property
    def failure(self) -> WriteFailure | None:
        """Why nothing can be committed now; None if the last transaction succeeded and none takes long."""
        began = self._began
        if self._failure is None and began is not None and time.monotonic() - began > SLOW_S:
            return WriteFailure(error=Conflict("a transaction has not ended for several seconds"), since=began)
        return self._failure

    @property
    def queued(self) -> int:
        """Webhooks that wait for a commit."""
        return len(self._webhooks)

    @property
    def queued_bytes(self) -> int:
        """Bytes of the webhooks that wait for a commit."""
        return self._queued_bytes

    @property
    def queue_max_bytes(self) -> int:
        """Most bytes that may wait for a commit."""
        return self._queue_max_bytes

    def _watch(self, loop: asyncio.AbstractEventLoop, answer_by: float) -> None:
        """Look at the waiting callers at `answer_by`. One timer serves all, so that a webhook in time costs nothing."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(answer_by, self._tell_late)

    def _tell_late(self) -> None:
        """Answer every caller whose time is over, and withdraw the webhooks whose commit has not begun."""
        loop = asyncio.get_running_loop()
        self._timer, until = None, loop.time() + EXPIRE_EVERY_S
        for entry in self._batch:
            if entry.answer_by <= until and not entry.future.done():
                late, entry.future = entry.future, loop.create_future()
                entry.answer_by = inf
                entry.future.add_done_callback(_look_at)
                late.set_exception(NotInTime(entry.future))
        if any(entry.answer_by <= until for entry in self._webhooks):
            waiting, self._webhooks = self._webhooks, deque()
            for entry in waiting:
                if entry.answer_by > until:
                    self._webhooks.append(entry)
                    continue
                self._queued_bytes -= entry.size
                _settle(entry.future, NotInTime(None))
        earliest = min((entry.answer_by for entry in (*self._batch, *self._webhooks)), default=inf)
        if earliest != inf:
            self._watch(loop, earliest)

    async def _commit_webhooks(self) -> None:
        self._batch = batch = [self._webhooks.popleft() for _ in range(min(BATCH, len(self._webhooks)))]
        self._queued_bytes -= sum(entry.size for entry in batch)
        with self._metrics.commit(len(batch)):
            results = await self._record([entry.webhook for entry in batch])
        self._batch = []
        for entry, result in zip(batch, results, strict=True):
            _settle(entry.future, result)

    async def _record(self, webhooks: Sequence[Webhook]) -> list[int | BaseException]:
        """Return one result or error per webhook. A batch with bad data is halved until the bad webhook is alone."""
        try:
            return list(await self._write(partial(self._recorder.record_webhooks, webhooks=webhooks)))
        except BadData as error:
            if len(webhooks) == 1:
                return [Unstorable(str(error))]
            middle = len(webhooks) // 2
            return [*await self._record(webhooks[:middle]), *await self._record(webhooks[middle:])]
        except Exception as error:  # noqa: BLE001 - every caller gets the error; the loop must live
            return [error] * len(webhooks)

    async def _commit_work(self, entry: tuple[Work[Any], asyncio.Future[Any]]) -> None:
        work, future = entry
        if future.done():  # its caller has given up
            return
        try:
            _settle(future, await self._write(work))
        except Exception as error:  # noqa: BLE001 - it belongs to the caller
            _settle(future, error)

    async def _write(self, work: Work[T]) -> T:
        self._began = time.monotonic()
        try:
            result = await self._write_or_repeat(work)
        except (Conflict, StoreUnavailable) as error:
            since = self._began if self._failure is None else self._failure.since
            self._failure = WriteFailure(error=error, since=since)
            raise
        else:
            self._failure = None
            return result
        finally:
            self._began = None

    async def _write_or_repeat(self, work: Work[T]) -> T:
        try:
            return await self._write_through_conflicts(work)
        except ConnectionLost as lost:
            self._needs_slot = True
            if lost.uncertain is not None and await self._has_committed(lost.uncertain):
                result: T = lost.uncertain.result
                return result
        return await self._write_through_conflicts(work)

    async def _has_committed(self, commit: UncertainCommit) -> bool:
        """Look up what became of a commit, while the database comes back. Raises `StoreUnavailable`."""
        until = time.monotonic() + LOOK_UP_WITHIN_S
        while True:
            try:
                return await self._store.has_committed(commit)
            except StoreUnavailable:
                if self._closing or time.monotonic() > until:
                    raise
            await asyncio.sleep(LOOK_UP_EVERY_S)

    async def _write_through_conflicts(self, work: Work[T]) -> T:
        await self._renew_slot()
        try:
            return await self._store.write(work)
        except Conflict:
            return await RETRIES(Conflict, self._store.write, work)

    async def _renew_slot(self) -> None:
        """Take a new slot after a lost connection, whose transaction may still hold the tallies of the old one."""
        if not self._needs_slot or self._take_slot is None:
            return
        try:
            self._recorder.slot = await self._store.write(self._take_slot)
        except ConnectionLost as lost:  # this commit is not the one that may be looked up
            raise StoreUnavailable(str(lost)) from lost
        self._needs_slot = False


def _look_at(future: asyncio.Future[Any]) -> None:
    """Take note of an error, because perhaps nobody waits for it any more."""
    if not future.cancelled():
        future.exception()


def _settle(future: asyncio.Future[Any], result: object) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
