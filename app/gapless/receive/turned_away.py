"""Notes the events whose verified webhooks we answered 503: that is why they were missed if only a list shows them.

The names wait in memory, within bounds, until the store can write them. A stranger cannot add one, because only a
verified webhook names an event here.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

import msgspec

from gapless.domain import Source
from gapless.ledger import quarantine as ledger
from gapless.ledger.engine import StoreError
from gapless.ledger.quarantine import Caps, QuarantinedWebhook
from gapless.ledger.writer import Writer
from gapless_reconcilers.kit.contract import RemoteEvent

MOST: Final = 10_000
"""Most names of one source that wait to be written; beyond it, the oldest are forgotten."""
IN_A_ROW: Final = 1000
"""Most names in one row."""
WRITE_EVERY_S: Final = 1.0
"""The shortest time between two writes, and the time after which a failed one is tried again."""
_log = logging.getLogger(__name__)


class TurnedAway:
    """Accepts events in `note`, without waiting; `run` writes their names when the writer is idle."""

    def __init__(self, writer: Writer, caps: Caps) -> None:
        self._writer = writer
        self._caps = caps
        self._waiting: dict[int, dict[str, int]] = {}
        self._arrived = asyncio.Event()

    def note(self, source: Source, events: Iterable[RemoteEvent], now_us: int) -> None:
        """Note that the webhook of these events was verified, and answered 503. Never blocks or raises."""
        if not (self._caps.rows and self._caps.size_bytes):
            return
        names = self._waiting.setdefault(source.id, {})
        names |= {name: now_us for event in events for name in ledger.names_of(event)}
        while len(names) > MOST:
            del names[next(iter(names))]
        self._arrived.set()

    async def run(self) -> None:
        """Write what was noted, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            try:
                for source_id in list(self._waiting):
                    await self._write(source_id)
            except StoreError as error:
                self._arrived.set()
                _log.info("turned_away_not_noted", extra={"error": str(error)})
            await asyncio.sleep(WRITE_EVERY_S)

    async def _write(self, source_id: int) -> None:
        """Write the names of a source, and forget them once they are durable."""
        while names := dict(list(self._waiting.get(source_id, {}).items())[:IN_A_ROW]):
            row = QuarantinedWebhook(
                source_id=source_id,
                received_us=max(names.values()),
                reason=ledger.UNAVAILABLE,
                detail=f"verified and answered 503: {len(names)} names of events",
                headers="[]",
                body=msgspec.json.encode(list(names)),
            )
            await self._writer.submit_idle(ledger.add, refused=[row], caps=self._caps)
            waiting = self._waiting[source_id]
            for name in names:
                waiting.pop(name, None)
        self._waiting.pop(source_id, None)
