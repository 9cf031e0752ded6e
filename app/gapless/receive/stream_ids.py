"""Which stream id a verified event belongs to: asked of the ledger once, then remembered."""

from gapless.ledger import streams
from gapless.ledger.writer import Writer
from gapless_reconcilers.kit.contract import RemoteEvent


class StreamIds:
    """Ids of streams by (source id, name). A stream never changes its id, so nothing is ever forgotten.

    Ask only after verification: each new name makes a row.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._ids: dict[tuple[int, str], int] = {}

    def known(self, source_id: int, events: tuple[RemoteEvent, ...]) -> list[int] | None:
        """One id per event, if all are remembered."""
        try:
            return [self._ids[source_id, event.stream] for event in events]
        except KeyError:
            return None

    async def learn(self, source_id: int, events: tuple[RemoteEvent, ...]) -> list[int]:
        """One id per event; a stream that is new starts at its source's start. Raises `StoreError`."""
        for name in sorted({event.stream for event in events}):
            if (source_id, name) not in self._ids:
                self._ids[source_id, name] = await self._writer.submit(
                    streams.ensure_stream, source_id=source_id, name=name
                )
        return [self._ids[source_id, event.stream] for event in events]
