"""Rows of streams."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from gapless.ledger.engine import dialect
from gapless.ledger.tables import SOURCE, STREAM


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stream's row. Times are microseconds; `checked_us` is None until a list has been read."""

    id: int
    source_id: int
    name: str
    complete_from_us: int
    watermark_us: int
    read_us: int | None = None
    """How far passes have read, while absent events hold the watermark back; None: up to the watermark."""
    checked_us: int | None
    last_complete_pass_us: int | None
    last_outcome: str | None
    parked_reason: str | None
    last_listed: int
    cursor: str | None
    last_error: str | None = None
    head_us: int | None = None
    """When its last scheduled pass began; None: never."""
    deep_us: int | None = None
    """When the last scheduled pass began that reached back over the whole lookback; None: never."""

    @property
    def read_to_us(self) -> int:
        """The time up to which passes have read the list; the next one goes on there."""
        return self.watermark_us if self.read_us is None else max(self.read_us, self.watermark_us)


def ensure_stream(connection: Connection, source_id: int, name: str) -> int:
    """Return the id of the stream; a new one starts at its source's start."""
    start_us = connection.execute(select(SOURCE.c.start_us).where(SOURCE.c.id == source_id)).scalar_one()
    row = {"source_id": source_id, "name": name, "complete_from_us": start_us, "watermark_us": start_us}
    dialect.insert_or_ignore(connection, STREAM, row)
    where = (STREAM.c.source_id == source_id, STREAM.c.name == name)
    return int(connection.execute(select(STREAM.c.id).where(*where)).scalar_one())


def streams(connection: Connection, source_id: int) -> list[Stream]:
    """Return all streams of the source, its own first."""
    rows = connection.execute(select(STREAM).where(STREAM.c.source_id == source_id).order_by(STREAM.c.name))
    return [Stream(**row) for row in rows.mappings()]


def note_heads(connection: Connection, stream_ids: Iterable[int], at_us: int) -> None:
    """Note that scheduled passes of these streams begin."""
    connection.execute(update(STREAM).where(STREAM.c.id.in_(list(stream_ids))).values(head_us=at_us))


def note_deep(connection: Connection, stream_id: int, at_us: int) -> None:
    """Note that a scheduled pass of the stream begins that reaches back over the whole lookback."""
    connection.execute(update(STREAM).where(STREAM.c.id == stream_id).values(deep_us=at_us))


def stream(connection: Connection, stream_id: int) -> Stream:
    """Return the stream with that id."""
    return Stream(**connection.execute(select(STREAM).where(STREAM.c.id == stream_id)).mappings().one())


def stream_name(connection: Connection, stream_id: int) -> str:
    """Return the name of a stream; empty for a source's own."""
    return str(connection.execute(select(STREAM.c.name).where(STREAM.c.id == stream_id)).scalar_one())
