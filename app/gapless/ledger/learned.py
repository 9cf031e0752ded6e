"""What was learned about a source, and what it is learned from: the lags of webhooks, the delay of the list, rates."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, delete, func, select

from gapless.domain import DAY_US
from gapless.ledger.engine import dialect
from gapless.ledger.tables import EVENT, LEARNED, LIST_DELAY

KEPT_DAYS = 35
"""Days for which the delays of the list are kept."""
DELAY_COLUMNS = ("source_id", "day", "bucket", "count")


class PlanSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The plan by which a source is read, for people. Spans are in seconds."""

    words: str
    shortest_s: float
    longest_s: float
    median_s: float
    """The wait of half of all single losses, from occurred to recorded, as planned."""
    p99_s: float
    wanted_median_s: float
    """What the median would be with a larger grant."""
    used: float | None
    """Planned requests, as a share of what may be used of the grant; None: the vendor names no grant."""
    is_short: bool
    """The grant costs recovery time."""
    runs_out: bool
    """The provider's history runs out between two readings."""
    siblings: bool
    """Streams are read again soon after a webhook."""
    sweep_every_s: float | None


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What was learned about a source. Spans are in seconds; None: unknown."""

    settle_s: float
    """The age from which a listed event is recorded."""
    grace_s: float
    """The age from which a listed event without a webhook is missed."""
    webhooks: int = 0
    """The number of webhooks whose lags were looked at."""
    lag_p50_s: float | None = None
    lag_p999_s: float | None = None
    """How long after an event its webhook came."""
    shown: int = 0
    """The number of events whose delay in the list was observed."""
    shown_p50_s: float | None = None
    shown_p999_s: float | None = None
    """The age at which a listing first showed what had come by webhook."""
    events_a_day: float = 0.0
    groups_a_day: float = 0.0
    """Webhooks that are not within settle of another: the events of a transaction count once."""
    granted: int | None = None
    """Requests that the vendor grants in its period; None: it names no grant."""
    period_s: float | None = None
    plan: PlanSummary | None = None


@dataclass(frozen=True, slots=True)
class WebhookTimes:
    """When an event occurred, and when its first webhook came, in microseconds."""

    occurred_us: int
    webhook_us: int


def note(connection: Connection, source_id: int, at_us: int, learned: Learned) -> None:
    """Store what was learned by `at_us` in place of what was known before."""
    connection.execute(delete(LEARNED).where(LEARNED.c.source_id == source_id))
    facts = msgspec.json.encode(learned).decode()
    dialect.insert_or_ignore(connection, LEARNED, {"source_id": source_id, "at_us": at_us, "facts": facts})


def read(connection: Connection, source_id: int) -> tuple[int, Learned] | None:
    """Return when something was last learned about the source, in microseconds, and what; None: nothing yet."""
    row = connection.execute(select(LEARNED).where(LEARNED.c.source_id == source_id)).first()
    return None if row is None else (row.at_us, msgspec.json.decode(row.facts, type=Learned))


def note_list_delays(connection: Connection, source_id: int, now_us: int, counts: Mapping[int, int]) -> None:
    """Count events by the bucket of the age at which a listing first showed them."""
    day = now_us // DAY_US
    dialect.add_up(
        connection, LIST_DELAY, DELAY_COLUMNS, [(source_id, day, *counted) for counted in sorted(counts.items())]
    )
    old = (LIST_DELAY.c.source_id == source_id, LIST_DELAY.c.day < day - KEPT_DAYS)
    connection.execute(delete(LIST_DELAY).where(*old))


def list_delays(connection: Connection, source_id: int, since_us: int) -> dict[int, int]:
    """Return the counts of those buckets since a time, in whole days."""
    query = select(LIST_DELAY.c.bucket, func.sum(LIST_DELAY.c.count)).where(
        LIST_DELAY.c.source_id == source_id, LIST_DELAY.c.day >= since_us // DAY_US
    )
    return {bucket: int(count) for bucket, count in connection.execute(query.group_by(LIST_DELAY.c.bucket))}


def newest_webhooks(connection: Connection, stream_ids: Iterable[int], since_us: int, limit: int) -> list[WebhookTimes]:
    """Return the newest events of each stream that came by webhook and occurred since a time, `limit` at most each."""
    found: list[WebhookTimes] = []
    for stream_id in stream_ids:
        query = (
            select(EVENT.c.occurred_us, EVENT.c.webhook_us)
            .where(EVENT.c.stream_id == stream_id, EVENT.c.occurred_us >= since_us, EVENT.c.webhook_us.is_not(None))
            .order_by(EVENT.c.occurred_us.desc())
            .limit(limit)
        )
        found += [WebhookTimes(*row) for row in connection.execute(query)]
    return found


def events_by_stream(connection: Connection, stream_ids: Iterable[int], since_us: int) -> dict[int, int]:
    """Return the number of events of each stream that occurred since a time; streams without any are left out."""
    query = select(EVENT.c.stream_id, func.count()).where(
        EVENT.c.stream_id.in_(list(stream_ids)), EVENT.c.occurred_us >= since_us
    )
    return {stream_id: int(count) for stream_id, count in connection.execute(query.group_by(EVENT.c.stream_id))}


def webhook_events(
    connection: Connection, stream_id: int, start_us: int, end_us: int, before_us: int
) -> dict[str, int]:
    """Return {key: time of occurrence} of the stream's events in `[start_us, end_us)` whose webhook came before then.

    A listing that was requested at `before_us` shows them, unless the list is late.
    """
    query = select(EVENT.c.key, EVENT.c.occurred_us).where(
        EVENT.c.stream_id == stream_id,
        EVENT.c.occurred_us >= start_us,
        EVENT.c.occurred_us < end_us,
        EVENT.c.webhook_us < before_us,
    )
    return {row.key: row.occurred_us for row in connection.execute(query)}
