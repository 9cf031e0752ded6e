"""Recover missing events: those that are known to exist are requested one by one, each on its own schedule."""

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from gapless.domain import Purpose, Via, from_us, span_us
from gapless.ledger import Connection, missing
from gapless.ledger.engine import BadData
from gapless.ledger.missing import Missing, Place
from gapless.ledger.recorder import Sighting
from gapless.ledger.streams import stream_name
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.diff import Circumstances, is_restored
from gapless_reconcilers.kit.contract import AsksRedelivery, FetchesDetail, MissingEvent, Remedy, RemoteEvent
from gapless_reconcilers.kit.errors import CredentialsRejected, OptionsInvalid, ProviderError

log = logging.getLogger(__name__)
FIRST_WAIT = timedelta(minutes=1)
LONGEST_WAIT = timedelta(hours=6)
FIRST: Place = (-1, 0, 0)
"""The place before all rows."""
AT_ONCE = 50
"""Missing rows that are read from the ledger at a time."""
IN_ONE_RUN = 1000
"""Missing rows that one run of a source tries at most; the next run goes on."""
REJECTIONS = 5
"""Requests that are rejected, while none is answered, after which a run stops asking: the key is wrong."""


def wait_after(attempts: int) -> timedelta:
    """Return the time to wait after so many failed attempts."""
    return min(FIRST_WAIT * (1 << min(attempts, 20)), LONGEST_WAIT)


async def recover_missing(
    leased: LeasedSource,
    circumstances: Circumstances,
    slots: asyncio.Semaphore,
    must_give_way: Callable[[], bool] = lambda: False,
    limit: float = math.inf,
) -> list[ProviderError]:
    """Try the missing rows that are due, until something goes before them or the client has made `limit` requests.

    Return the errors that concern the source rather than one event.
    """
    recovery = Recovery(
        leased=leased, circumstances=circumstances, slots=slots, must_give_way=must_give_way, limit=limit
    )
    now_us, slot, after = leased.runtime.now_us, leased.runtime.writer.recorder.slot, FIRST
    for _ in range(IN_ONE_RUN // AT_ONCE):
        rows = await leased.runtime.read(
            missing.due, source_id=leased.source.id, now_us=now_us, limit=AT_ONCE, after=after
        )
        if not rows:
            break
        async with asyncio.TaskGroup() as group:
            for row in await leased.write(missing.still_missing, slot=slot, rows=rows):
                group.create_task(recovery.try_row(row))
        after = rows[-1].place
        if len(rows) < AT_ONCE or recovery.must_stop:
            break
    leased.memory.details_wait = recovery.is_spent
    return recovery.failures


@dataclass(slots=True, kw_only=True)
class Recovery:
    """Requests missing events, as many at once as slices are read."""

    leased: LeasedSource
    circumstances: Circumstances
    slots: asyncio.Semaphore
    must_give_way: Callable[[], bool]
    limit: float
    answered: int = 0
    rejections: list[ProviderError] = field(default_factory=list)

    @property
    def failures(self) -> list[ProviderError]:
        """Return the rejections, if nothing was answered: one rejected request beside others concerns its event."""
        return [] if self.answered else self.rejections

    @property
    def is_spent(self) -> bool:
        """Return True if no further request can be paid for."""
        return self.leased.client.requests >= self.limit

    @property
    def must_stop(self) -> bool:
        """Return True if no further row may be tried in this run."""
        is_over = self.leased.stopping.is_set() or (self.answered > 0 and self.must_give_way())
        return is_over or self.is_spent or len(self.failures) >= REJECTIONS

    async def try_row(self, row: Missing) -> None:
        """Request one event, and record the outcome in its row. Raises `LeaseLost` and `StoreError`."""
        async with self.slots:
            if self.must_stop:
                return
            try:
                await self._try(row)
            except CredentialsRejected as error:
                self.rejections.append(error)
                await self._postpone(row, f"{type(error).__name__}: {error}")
            except ProviderError as error:
                await self._postpone(row, f"{type(error).__name__}: {error}")
            else:
                self.answered += 1

    async def _try(self, row: Missing) -> None:
        provider = self.leased.source.provider
        wanted = await self._missing_event(row)
        if row.reason == Remedy.REDELIVERY.value and isinstance(provider, AsksRedelivery):
            await self._request_redelivery(row, provider, wanted)
        elif isinstance(provider, FetchesDetail):
            await self._fetch(row, provider, wanted)
        else:
            await self._postpone(row, f"provider {provider.kind!r} cannot bring a single event back")

    async def _missing_event(self, row: Missing) -> MissingEvent:
        stream = await self.leased.runtime.read(stream_name, stream_id=row.stream_id)
        at = from_us(row.occurred_us)
        return MissingEvent(key=row.key, type=row.type, occurred_at=at, stream=stream, ref=row.ref)

    async def _fetch(self, row: Missing, provider: FetchesDetail, wanted: MissingEvent) -> None:
        try:
            response = await self.leased.send(provider.detail_request(wanted), Purpose.DETAIL)
            event = provider.read_detail(wanted, response)
        except OptionsInvalid as error:  # 404, 410: the provider no longer has it
            await self._give_up(row, error)
            return
        try:
            await self.leased.write(_store, leased=self.leased, row=row, sighting=self._sighting(row, event))
        except BadData as error:
            await self._postpone(row, str(error))

    async def _request_redelivery(self, row: Missing, provider: AsksRedelivery, wanted: MissingEvent) -> None:
        """Ask the provider to send the webhook again. The row closes when that webhook is recorded."""
        try:
            await self.leased.send(provider.redelivery_request(wanted), Purpose.DETAIL)
        except OptionsInvalid as error:
            await self._give_up(row, error)
            return
        now_us, wait_us = self.leased.runtime.now_us, span_us(wait_after(row.attempts))
        await self.leased.write(missing.note_redelivery_request, row=row, now_us=now_us, wait_us=wait_us)

    def _sighting(self, row: Missing, event: RemoteEvent) -> Sighting:
        return Sighting(
            source=self.leased.source,
            stream_id=row.stream_id,
            event=event,
            via=Via.LIST,
            seen_us=self.leased.runtime.now_us,
            cause=row.cause,
            restored=is_restored(row.occurred_us, row.stream_id, self.circumstances),
        )

    async def _give_up(self, row: Missing, error: ProviderError) -> None:
        unit_us, now_us = span_us(self.leased.capabilities.resolution), self.leased.runtime.now_us
        if await self.leased.write(missing.give_up, row=row, error=str(error), now_us=now_us, unit_us=unit_us):
            labels = {"source": self.leased.source.name, "event_key": row.key, "error": str(error)}
            log.warning("event_lost", extra=labels)

    async def _postpone(self, row: Missing, error: str) -> None:
        now_us, wait_us = self.leased.runtime.now_us, span_us(wait_after(row.attempts))
        next_at = str(from_us(now_us + wait_us))
        log.warning("event_still_missing", extra={"event_key": row.key, "error": error, "next": next_at})
        await self.leased.write(missing.postpone, row=row, now_us=now_us, wait_us=wait_us, error=error)


def _store(connection: Connection, leased: LeasedSource, row: Missing, sighting: Sighting) -> None:
    """Record the event. If it was recorded meanwhile, close its row nevertheless, or it would be fetched for ever."""
    recorder = leased.runtime.writer.recorder
    recorder.store(connection, [sighting])
    missing.still_missing(connection, recorder.slot, [row])
