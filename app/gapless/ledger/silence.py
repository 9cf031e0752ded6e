"""Detects silence: no webhook for longer than the configured time, or than the source's own rhythm suggests.

A provider may disable our endpoint without notice; then the silence is the only sign.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, func, or_, select, update

from gapless.domain import HOUR_US, HOURS_OF_WEEK, RHYTHM_FROM, Silence, from_us, to_us
from gapless.ledger import looks
from gapless.ledger.tables import SOURCE, TALLY

MIN_HISTORY: Final = timedelta(weeks=3)
"""Time that the tallies must cover before a rhythm is computed from them."""
SILENT_FROM: Final = 7.0
"""Expected webhooks from which on their absence is silence: by chance it happens less than once in a thousand times."""


def note_heard(connection: Connection, heard: Mapping[int, int]) -> None:
    """Store the time of each source's last webhook, by source id, in microseconds; never an earlier one than known."""
    for source_id, at_us in sorted(heard.items()):
        older = or_(SOURCE.c.last_webhook_us.is_(None), SOURCE.c.last_webhook_us < at_us)
        values = {"last_webhook_us": at_us, **looks.first_unread(at_us)}
        connection.execute(update(SOURCE).where(SOURCE.c.id == source_id, older).values(**values))


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookHistory:
    """The history of a source's webhooks."""

    since_us: int
    """The time of the last one, else the time from which one could have come."""
    by_hour: Mapping[int, int]
    """Webhooks by hour since 1970 of their events, if the rhythm is to be learned."""


def read_heard(connection: Connection, source_id: int, silence: Silence | None, now: datetime) -> WebhookHistory | None:
    """Return the input of `is_silent`; None: silence is not watched."""
    if silence is None:
        return None
    row = connection.execute(select(SOURCE.c.last_webhook_us, SOURCE.c.state_us).where(SOURCE.c.id == source_id)).one()
    since_us = row.state_us or 0 if row.last_webhook_us is None else row.last_webhook_us
    return WebhookHistory(since_us=since_us, by_hour={} if silence.after else _by_hour(connection, source_id, now))


def is_silent(silence: Silence, heard: WebhookHistory, now: datetime) -> bool | None:
    """Return True if the source is silent at `now`; None: its rhythm is not known yet."""
    since = from_us(heard.since_us)
    if silence.after is not None:
        return now - since > silence.after
    rates = rhythm(heard.by_hour, now)
    return None if rates is None else expected(rates, since, now) >= SILENT_FROM


def rhythm(by_hour: Mapping[int, int], now: datetime) -> list[float] | None:
    """Return the average webhooks in each hour of the week, over whole weeks before `now`; None: too little history."""
    this_hour = to_us(now) // HOUR_US
    weeks = (this_hour - min(by_hour, default=this_hour)) // HOURS_OF_WEEK
    if timedelta(weeks=weeks) < MIN_HISTORY:
        return None
    sums: defaultdict[int, int] = defaultdict(int)
    for hour, count in by_hour.items():
        if this_hour - weeks * HOURS_OF_WEEK <= hour < this_hour:
            sums[hour % HOURS_OF_WEEK] += count
    return [sums[hour] / weeks for hour in range(HOURS_OF_WEEK)]


def expected(rates: list[float], start: datetime, end: datetime) -> float:
    """Return the webhooks that `rates` predict for `[start, end)`, of which at most the last week counts."""
    start_us, end_us = to_us(max(start, end - timedelta(weeks=1))), to_us(end)
    total = 0.0
    for hour in range(start_us // HOUR_US, end_us // HOUR_US + 1):
        inside_us = min(end_us, (hour + 1) * HOUR_US) - max(start_us, hour * HOUR_US)
        total += rates[hour % HOURS_OF_WEEK] * inside_us / HOUR_US
    return total


def _by_hour(connection: Connection, source_id: int, now: datetime) -> dict[int, int]:
    oldest = to_us(now - RHYTHM_FROM) // HOUR_US
    query = select(TALLY.c.hour, func.sum(TALLY.c.by_webhook)).where(
        TALLY.c.source_id == source_id, TALLY.c.hour >= oldest, TALLY.c.by_webhook > 0
    )
    return {hour: int(count) for hour, count in connection.execute(query.group_by(TALLY.c.hour))}
