"""Read a list that the provider empties as it is read: an update that is acknowledged is gone.

The cursor is committed together with the events, and the next request, which acknowledges them, is built only then.
So nothing is fetched ahead, cut into slices, tried or audited.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from gapless.domain import Purpose, Via, span_us, to_us
from gapless.ledger import Connection, engine, missing, streams, watermarks
from gapless.ledger.recorder import Sighting
from gapless.ledger.streams import Stream
from gapless.provider_api.pages import read_or_ask_again
from gapless.reconcile import odd_rows
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.page_recorder import missing_row
from gapless.reconcile.pass_result import PassResult
from gapless.reconcile.unreadable_rows import set_aside
from gapless_reconcilers.kit.contract import Batch, ConsumesEvents, Page, RemoteEvent
from gapless_reconcilers.kit.errors import OptionsInvalid, ProviderError, UnexpectedShape

WAIT = timedelta(seconds=25)
"""Time that the provider may hold a request open, where the pace is `long_poll`."""


@dataclass(slots=True, kw_only=True)
class ConsumeRun:
    """One run of a consumed stream: batch after batch, until one is empty."""

    leased: LeasedSource
    stream: Stream
    result: PassResult = field(default_factory=PassResult)

    async def run(self) -> PassResult:
        """Read all batches. Provider errors are in the result; `LeaseLost` and `StoreError` are raised."""
        provider = self.leased.source.provider
        try:
            if not isinstance(provider, ConsumesEvents):
                raise OptionsInvalid(f"provider {provider.kind!r} has no batches to consume")
            while not self.leased.stopping.is_set() and await self._take_batch(provider):
                pass
        except ProviderError as error:
            self.result.failures.append(error)
        return self.result

    async def _take_batch(self, provider: ConsumesEvents) -> bool:
        """Read one batch. Return False if it was empty: then the source is complete up to the time of the request."""
        requested_at = self.leased.client.now
        wait = WAIT if self.leased.policy.pace.long_poll else timedelta(0)
        request = provider.batch_request(self.stream.cursor, wait)
        response = await self.leased.send(request, Purpose.HEARTBEAT)
        now = self.leased.runtime.clock()
        batch = await read_or_ask_again(
            self.leased.client.spending(Purpose.HEARTBEAT), request, response, provider.read_batch, now
        )
        self.result.requests += 1
        self.result.listed += len(batch.events)
        if batch.cursor is None:
            self.result.complete = True
            await self.leased.write(self._note_complete, up_to_us=to_us(requested_at))
            return False
        refusal = await self._set_aside(batch) if batch.unreadable else None
        await self._record(batch, batch.cursor if refusal is None else self.stream.cursor)
        if refusal is not None:
            raise refusal
        self.stream = await self.leased.runtime.read(streams.stream, stream_id=self.stream.id)
        return True

    async def _set_aside(self, batch: Batch) -> UnexpectedShape | None:
        """Keep the rows that cannot be read, because the vendor forgets them. Return the error if they are too many."""
        times = odd_rows.Times(
            order=self.leased.capabilities.order,
            unit_us=span_us(self.leased.capabilities.resolution),
            start_us=self.stream.watermark_us,
            end_us=self.leased.runtime.now_us,
        )
        page = Page(events=batch.events, next=None, unreadable=batch.unreadable)
        new = await set_aside(self.leased, self.stream, page, times, before=self.result.set_aside)
        if isinstance(new, UnexpectedShape):
            return new
        self.result.set_aside += new
        return None

    async def _record(self, batch: Batch, cursor: str | None) -> None:
        """Record every event, wanted or not, because the vendor forgets it now. The route decides who is owed it."""
        sightings = [self._sighting(event) for event in batch.events]
        try:
            self.result.found += await self.leased.write(self._store, sightings=sightings, cursor=cursor)
        except engine.BadData:
            await self._record_singly(sightings, cursor)

    async def _record_singly(self, sightings: Sequence[Sighting], cursor: str | None) -> None:
        """Record the events one by one, note as missing those that cannot be stored, and only then save the cursor."""
        for sighting in sightings:
            try:
                self.result.found += await self.leased.write(
                    self._store, sightings=[sighting], cursor=self.stream.cursor
                )
            except engine.BadData:
                row = missing_row(sighting, "unstorable")
                slot = self.leased.runtime.writer.recorder.slot
                await self.leased.write(missing.add, slot=slot, found=[row])
        await self.leased.write(self._store, sightings=[], cursor=cursor)

    def _store(self, connection: Connection, sightings: Sequence[Sighting], cursor: str | None) -> int:
        """Record the events and the cursor that acknowledges them. Return how many events were new."""
        new = self.leased.runtime.writer.recorder.store(connection, sightings)
        watermarks.save_cursor(connection, self.stream.id, cursor)
        return len(new)

    def _note_complete(self, connection: Connection, up_to_us: int) -> None:
        now_us = self.leased.runtime.now_us
        watermarks.note_consumed(connection, self.stream.id, up_to_us, now_us)
        watermarks.complete_pass(connection, self.stream.id, self.result.outcome, now_us, self.result.listed)

    def _sighting(self, event: RemoteEvent) -> Sighting:
        return Sighting(
            source=self.leased.source,
            stream_id=self.stream.id,
            event=event,
            via=Via.LIST,
            seen_us=self.leased.runtime.now_us,
        )
