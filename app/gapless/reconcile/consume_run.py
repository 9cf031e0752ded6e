"""Reading that takes away. The cursor is committed with what was read, and only then is the next request built.

So nothing is fetched ahead, cut into slices, tried or audited: an update that is acknowledged is gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

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

    claim: LeasedSource
    stream: Stream
    figures: PassResult = field(default_factory=PassResult)

    async def run(self) -> PassResult:
        """Provider errors end up in the figures; `LeaseLost` and `StoreError` are raised."""
        provider = self.claim.source.provider
        try:
            if not isinstance(provider, ConsumesEvents):
                raise OptionsInvalid(f"provider {provider.kind!r} hands nothing out")
            while not self.claim.stopping.is_set() and await self._take_batch(provider):
                pass
        except ProviderError as error:
            self.figures.failures.append(error)
        return self.figures

    async def _take_batch(self, provider: ConsumesEvents) -> bool:
        """Read one batch; False if it was empty: the source is complete up to when it was asked for."""
        asked = self.claim.road.clock()
        wait = WAIT if self.claim.policy.pace.long_poll else timedelta(0)
        response = await self.claim.fetcher.send(provider.batch_request(self.stream.cursor, wait))
        batch = provider.read_batch(response, self.claim.road.clock())
        self.figures.requests += 1
        self.figures.listed += len(batch.events)
        if batch.cursor is None:
            self.figures.complete = True
            await self.claim.write(partial(self._note_complete, up_to_us=to_us(asked)))
            return False
        await self._record(batch)
        self.stream = await self.claim.road.read(partial(streams.stream, stream_id=self.stream.id))
        return True

    async def _record(self, batch: Batch) -> None:
        """Record all of it, wanted or not: the vendor forgets it now. What is owed to whom is the route's to say."""
        read = [self._sighting(event) for event in batch.events]
        try:
            self.figures.found += await self.claim.write(partial(self._store, sightings=read, cursor=batch.cursor))
        except engine.BadData:
            await self._record_singly(read, batch.cursor)

    async def _record_singly(self, sightings: Sequence[Sighting], cursor: str | None) -> None:
        """Record what can be, note what cannot, and only then let the vendor forget all of it."""
        for sighting in sightings:
            try:
                self.figures.found += await self.claim.write(
                    partial(self._store, sightings=[sighting], cursor=self.stream.cursor)
                )
            except engine.BadData:
                row = missing_row(sighting, Cause.UNEXPLAINED, "unstorable")
                slot = self.claim.road.writer.recorder.slot
                await self.claim.write(partial(missing.add, slot=slot, found=[row]))
        await self.claim.write(partial(self._store, sightings=[], cursor=cursor))

    def _store(self, connection: Connection, sightings: Sequence[Sighting], cursor: str | None) -> int:
        """Record, and with it the cursor that acknowledges; how many events were new."""
        new = self.claim.road.writer.recorder.store(connection, sightings)
        watermarks.save_cursor(connection, self.stream.id, cursor)
        return len(new)

    def _note_complete(self, connection: Connection, up_to_us: int) -> None:
        now_us = to_us(self.claim.road.clock())
        watermarks.note_consumed(connection, self.stream.id, up_to_us, now_us)
        watermarks.complete_pass(connection, self.stream.id, self.figures.outcome, now_us, self.figures.listed)

    def _sighting(self, event: RemoteEvent) -> Sighting:
        return Sighting(
            source=self.claim.source,
            stream_id=self.stream.id,
            event=event,
            via=Via.LIST,
            seen_us=to_us(self.claim.road.clock()),
        )
