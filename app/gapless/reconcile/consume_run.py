"""Reading that takes away. The cursor is committed with what was read, and only then is the next request built.

So nothing is fetched ahead, cut into slices, tried or audited: an update that is acknowledged is gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from gapless.domain import Cause, Via, to_us
from gapless.ledger import Connection, engine, missing, streams, watermarks
from gapless.ledger.recorder import Sighting
from gapless.ledger.streams import Stream
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.pass_run import PassResult, missing_row
from gapless_reconcilers.kit.contract import Batch, ConsumesEvents, RemoteEvent
from gapless_reconcilers.kit.errors import OptionsInvalid, ProviderError

WAIT = timedelta(seconds=25)
"""How long a vendor that lets us wait may take to answer, where the pace is `long_poll`."""


@dataclass(slots=True, kw_only=True)
class ConsumeRun:
    """One turn of a stream that is read away: batch after batch, until one is empty."""

    leased: LeasedSource
    stream: Stream
    figures: PassResult = field(default_factory=PassResult)

    async def run(self) -> PassResult:
        """Provider errors end up in the figures; `LeaseLost` and `StoreError` are raised."""
        provider = self.leased.source.provider
        try:
            if not isinstance(provider, ConsumesEvents):
                raise OptionsInvalid(f"provider {provider.kind!r} hands nothing out")
            while not self.leased.stopping.is_set() and await self._take_batch(provider):
                pass
        except ProviderError as error:
            self.figures.failures.append(error)
        return self.figures

    async def _take_batch(self, provider: ConsumesEvents) -> bool:
        """Read one batch; False if it was empty: the source is complete up to when it was asked for."""
        asked = self.leased.runtime.clock()
        wait = WAIT if self.leased.policy.pace.long_poll else timedelta(0)
        response = await self.leased.client.send(provider.batch_request(self.stream.cursor, wait))
        batch = provider.read_batch(response, self.leased.runtime.clock())
        self.figures.requests += 1
        self.figures.listed += len(batch.events)
        if batch.cursor is None:
            self.figures.complete = True
            await self.leased.write(self._note_complete, up_to_us=to_us(asked))
            return False
        await self._record(batch)
        self.stream = await self.leased.runtime.read(streams.stream, stream_id=self.stream.id)
        return True

    async def _record(self, batch: Batch) -> None:
        """Record all of it, wanted or not: the vendor forgets it now. What is owed to whom is the route's to say."""
        read = [self._sighting(event) for event in batch.events]
        try:
            self.figures.found += await self.leased.write(self._store, sightings=read, cursor=batch.cursor)
        except engine.BadData:
            await self._record_singly(read, batch.cursor)

    async def _record_singly(self, sightings: Sequence[Sighting], cursor: str | None) -> None:
        """Record what can be, note what cannot, and only then let the vendor forget all of it."""
        for sighting in sightings:
            try:
                self.figures.found += await self.leased.write(
                    self._store, sightings=[sighting], cursor=self.stream.cursor
                )
            except engine.BadData:
                row = missing_row(sighting, Cause.UNEXPLAINED, "unstorable")
                slot = self.leased.runtime.writer.recorder.slot
                await self.leased.write(missing.add, slot=slot, found=[row])
        await self.leased.write(self._store, sightings=[], cursor=cursor)

    def _store(self, connection: Connection, sightings: Sequence[Sighting], cursor: str | None) -> int:
        """Record, and with it the cursor that acknowledges; how many events were new."""
        new = self.leased.runtime.writer.recorder.store(connection, sightings)
        watermarks.save_cursor(connection, self.stream.id, cursor)
        return len(new)

    def _note_complete(self, connection: Connection, up_to_us: int) -> None:
        now_us = self.leased.runtime.now_us
        watermarks.note_consumed(connection, self.stream.id, up_to_us, now_us)
        watermarks.complete_pass(connection, self.stream.id, self.figures.outcome, now_us, self.figures.listed)

    def _sighting(self, event: RemoteEvent) -> Sighting:
        return Sighting(
            source=self.leased.source,
            stream_id=self.stream.id,
            event=event,
            via=Via.LIST,
            seen_us=self.leased.runtime.now_us,
        )
