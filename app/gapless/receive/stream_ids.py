"""The ids of the streams of verified events: read from the ledger once, then kept in memory."""

from gapless.ledger import streams
from gapless.ledger.writer import Writer
from gapless_reconcilers.kit.contract import RemoteEvent


class StreamIds:
    """Ids of streams by (source id, name). A stream never changes its id, so no entry expires.

    Use it only after verification: each new name makes a row.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._ids: dict[tuple[int, str], int] = {}

    def known(self, source_id: int, events: tuple[RemoteEvent, ...]) -> list[int] | None:
        """Return one id per event; None unless all are in memory."""
        try:
            return [self._ids[source_id, event.stream] for event in events]
        except KeyError:
            return None

    async def learn(self, source_id: int, events: tuple[RemoteEvent, ...]) -> list[int]:
        """Return one id per event; a new stream gets a row and starts at its source's start. Raises `StoreError`."""
        for name in sorted({event.stream for event in events}):
            if (source_id, name) not in self._ids:
                self._ids[source_id, name] = await self._writer.submit(
                    streams.ensure_stream, source_id=source_id, name=name
                )
        return [self._ids[source_id, event.stream] for event in events]
