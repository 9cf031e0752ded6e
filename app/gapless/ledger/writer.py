"""The one writer of a process: commits webhooks first, in batches, and all other work one by one between them.

A webhook's caller gets its result only after the commit that contains it. There is no batching window:
the webhooks that arrive during one commit are the next batch.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import stamina
from sqlalchemy import Connection

from gapless.ledger.engine import BadData, Conflict, Store, StoreError, StoreUnavailable, bind
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


class QueueFull(StoreUnavailable):
    """More webhooks wait for a commit than the configured limit allows."""


class Unstorable(StoreError):
    """This webhook can never be stored; the rest of its batch was."""


class Writer:
    """Commits for one process. `run` is its loop; `close` lets it finish the submitted work, then stops it."""

    def __init__(
        self, store: Store, recorder: Recorder, metrics: Metrics, *, queue_max: int, queue_max_bytes: int
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._metrics = metrics
        self._queue_max = queue_max
        self._queue_max_bytes = queue_max_bytes
        self._queued_bytes = 0
        self._webhooks: deque[tuple[Webhook, int, asyncio.Future[int]]] = deque()
        self._work: deque[tuple[Work[Any], asyncio.Future[Any]]] = deque()
        self._idle_work: deque[tuple[Work[Any], asyncio.Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._running = False
        self._began: float | None = None

    @property
    def recorder(self) -> Recorder:
        """The recorder, for work that records events."""
        return self._recorder

    def record(self, webhook: Webhook, size: int) -> asyncio.Future[int]:
        """Queue a webhook of `size` bytes; the future returns how many of its events were new, once they are durable.

        Raises `QueueFull` at once. The future raises `Unstorable` or `StoreUnavailable`.
        """
        if self._closing or len(self._webhooks) >= self._queue_max or self._queued_bytes + size > self._queue_max_bytes:
            raise QueueFull(f"{len(self._webhooks)} webhooks ({self._queued_bytes} bytes) wait to be committed")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._webhooks.append((webhook, size, future))
        self._queued_bytes += size
        self._wake.set()
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
    def queued(self) -> int:
        """Webhooks that wait for a commit."""
        return len(self._webhooks)

    async def _commit_webhooks(self) -> None:
        batch = [self._webhooks.popleft() for _ in range(min(BATCH, len(self._webhooks)))]
        self._queued_bytes -= sum(size for _, size, _ in batch)
        with self._metrics.commit(len(batch)):
            results = await self._record([webhook for webhook, _, _ in batch])
        for (_, _, future), result in zip(batch, results, strict=True):
            _settle(future, result)

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
        try:
            _settle(future, await self._write(work))
        except Exception as error:  # noqa: BLE001 - it belongs to the caller
            _settle(future, error)

    async def _write(self, work: Work[T]) -> T:
        self._began = time.monotonic()
        try:
            return await self._store.write(work)
        except Conflict:
            return await RETRIES(Conflict, self._store.write, work)
        finally:
            self._began = None


def _settle(future: asyncio.Future[Any], result: object) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
