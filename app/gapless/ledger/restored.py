"""Times that a restored backup lacks. What the list shows of them may have been recorded, and delivered, before."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection, select

from gapless.ledger import findings
from gapless.ledger.engine import dialect
from gapless.ledger.tables import RESTORED, STREAM, UNRECOVERABLE

REASON = "restored"
"""Why deliveries are held, and why nothing can be proven of a source that lists nothing."""
Intervals = Mapping[int, Sequence[tuple[int, int]]]
"""Per stream id: `(start, end)` in microseconds."""


def note(connection: Connection, since_us: int, now_us: int, unlisted: Collection[int]) -> int:
    """Note that every active stream lacks what was recorded from `since_us` until `now_us`. Returns how many streams.

    For the sources in `unlisted` nothing can fill that interval: it is unrecoverable. For the others it begins at the
    watermark if that is earlier, because webhooks of later events may have come after the backup. So nothing is missed
    of what was not judged yet.
    """
    query = select(STREAM.c.id, STREAM.c.source_id, STREAM.c.watermark_us)
    count, streams = 0, connection.execute(query.order_by(STREAM.c.id)).all()
    findings.drop(connection, [stream.id for stream in streams])
    for stream_id, source_id, watermark_us in streams:
        if source_id in unlisted:
            lost = {"start_us": since_us, "end_us": now_us, "reason": REASON, "recorded_us": now_us}
            count += dialect.insert_or_ignore(connection, UNRECOVERABLE, {"stream_id": stream_id, **lost})
        else:
            row = {"stream_id": stream_id, "start_us": min(since_us, watermark_us), "end_us": now_us}
            count += dialect.insert_or_ignore(connection, RESTORED, row)
    return count


def intervals(connection: Connection, source_id: int) -> Intervals:
    """Return the intervals of the source's streams."""
    query = select(RESTORED).join(STREAM, STREAM.c.id == RESTORED.c.stream_id).where(STREAM.c.source_id == source_id)
    found: dict[int, list[tuple[int, int]]] = {}
    for stream_id, start_us, end_us in connection.execute(query):
        found.setdefault(stream_id, []).append((start_us, end_us))
    return found
