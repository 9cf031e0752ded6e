"""Decide how soon a source is read again, how far back, and how its sweeps go on beside that. Pure."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from gapless.clock import is_due
from gapless.domain import LEAST_HEADROOM, Purpose, span_us, to_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The bounds of a source's interval; with `adaptive` False it is always the shorter one."""

    shortest: timedelta
    longest: timedelta
    adaptive: bool
    long_poll: bool = False
    """Ask again at once: the provider holds the request open until it has events."""


def due_at_start(last_complete: datetime | None, pace: Pace, now: datetime) -> datetime:
    """Return the time of a source's first pass after a start: now, unless it was read within the shortest interval."""
    if last_complete is None:
        return now
    due = last_complete + pace.shortest
    return now if is_due(to_us(due), span_us(pace.shortest), to_us(now)) else due


def latest_next_pass(history: timedelta | None, watermark: datetime) -> datetime | None:
    """Return the time by which a pass must be made whatever the budget says; None: the history has no limit."""
    return None if history is None else watermark + history * (1 - LEAST_HEADROOM)


SIBLING_SHARE, SWEEP_SHARE, CHECK_SHARE = 0.25, 0.2, 0.05
"""Shares of a day's refill that siblings, sweeps, and checks of endpoint and account may use at most."""
OVERDUE = 3
"""Intervals after which a heartbeat that could not be paid for may use the reserve."""
TOGETHER = timedelta(seconds=2)
"""Time within which the events of a transaction occur: a lost one may be that much younger than the newest webhook."""
DEEP_SHARE = 0.5
"""A head reading reaches back over the whole lookback when this share of it has passed since the last that did."""
ONE_PAGE = 1.2
"""Average pages of a reading up to which a longer one usually is one page as well."""
PAGES_A_PIECE = 4
"""Pages of an average piece of a sweep."""
MOST_PIECES = 64
NEVER = timedelta(days=36_500)
"""Time between sweeps where they cannot be paid for."""


def next_reading(
    *,
    last: datetime,
    beat: timedelta,
    settle: timedelta,
    shortest: timedelta,
    webhook: datetime | None = None,
    unread: datetime | None = None,
    urgent: datetime | None = None,
) -> datetime:
    """Return when a stream is read next if nothing has to be paid for: the first of its `reading_wishes`."""
    wishes = reading_wishes(
        last=last, beat=beat, settle=settle, shortest=shortest, webhook=webhook, unread=unread, urgent=urgent
    )
    return min(wishes.values())


def reading_wishes(
    *,
    last: datetime,
    beat: timedelta,
    settle: timedelta,
    shortest: timedelta,
    webhook: datetime | None = None,
    unread: datetime | None = None,
    urgent: datetime | None = None,
    latest: datetime | None = None,
    overdue: timedelta | None = None,
) -> dict[Purpose, datetime]:
    """Return when a stream is to be read for each purpose; `purse.first_affordable` chooses one that can be paid.

    `webhook` is the newest webhook that came less than settle before the last reading, or after it, and `unread` the
    oldest; None, and siblings are not looked for. The siblings of a transaction come together: the reading waits until
    the newest webhook has settled, but the oldest waits no longer than twice that. Such readings are at least `settle`
    or `shortest` apart. `urgent` is the next look's time, `latest` the time at which the history begins to run out
    (`latest_next_pass`).

    A heartbeat that could not be paid for is urgent when `overdue` has passed since the last reading; None: after three
    intervals. While details wait to be paid for, pass the longest interval: what is found sooner would only wait too.
    """
    wishes = {Purpose.HEARTBEAT: last + beat, Purpose.URGENT: last + (OVERDUE * beat if overdue is None else overdue)}
    if webhook is not None:
        oldest = webhook if unread is None else unread
        settled = min(webhook + settle, oldest + 2 * settle) + TOGETHER
        wishes[Purpose.SIBLING] = max(settled, last + min(settle, shortest))
    if urgent is not None:
        wishes[Purpose.URGENT] = min(wishes[Purpose.URGENT], urgent)
    if latest is not None:
        wishes[Purpose.HISTORY] = latest
    return wishes


def reads_siblings(groups_a_day: float, cost: float, per_day: float) -> bool:
    """Return True if readings for siblings pay: their share of the refill covers at least half of them.

    `groups_a_day`: groups of webhooks, each of which begins with one that comes later than settle after the beginning
    of the group before. That is a transaction on a calm account, and a reading on a busy one.
    """
    return groups_a_day * cost <= 2 * SIBLING_SHARE * per_day


def is_deep(last_deep: datetime | None, lookback: timedelta, now: datetime) -> bool:
    """Return True if the next head reading reaches back over the whole lookback; None: none ever did.

    It does so too if the last one lies ahead: a clock was wrong.
    """
    return last_deep is None or not timedelta(0) <= now - last_deep < lookback * DEEP_SHARE


def head_reach(*, deep: bool, lookback: timedelta, grace: timedelta, cost: float) -> timedelta:
    """Return how far behind the watermark a head reading begins: the lookback if it is `deep`, else about a grace.

    The grace finds what was listed late a little sooner than the lookback does, which is worth no further page: where
    a reading `cost` more than one lately, it begins at the watermark.
    """
    if deep:
        return lookback
    return grace if cost <= ONE_PAGE else timedelta(0)


def sweep_slices(events: float, page: int) -> int:
    """Return into how many pieces a sweep over so many events is cut: of about four pages each."""
    return int(min(max(events // (PAGES_A_PIECE * page), 1), MOST_PIECES))


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPace:
    """How a sweep goes on beside the heads."""

    every: timedelta
    """Time between the starts of two sweeps: the configured one, or more if their share of the budget is short."""
    pieces: int
    requests: int
    """Requests of a piece at most."""
    between: timedelta
    """Time between the starts of two pieces."""


def plan_sweeps(
    events: float, page: int, per_day: float, rate: float, every: timedelta, at_once: float = math.inf
) -> SweepPace:
    """Return the pace of sweeps over windows of so many `events`, `page` of them to a request.

    They get a fifth of the `per_day` requests that the purse refills, and half the `rate` a second; if that is short,
    they are rarer. `every` is the configured time between two. `at_once` is what the purse can spare for a piece: a
    larger one would keep the heads waiting.
    """
    pages = max(math.ceil(events / page), sweep_slices(events, page))
    pieces = max(sweep_slices(events, page), math.ceil(pages / max(at_once, 1.0)))
    requests = math.ceil(pages / pieces)
    days = pieces * requests / (SWEEP_SHARE * per_day) if per_day > 0 else math.inf
    every = max(every, timedelta(days=min(days, NEVER.days)), timedelta(seconds=pieces * requests / (rate / 2)))
    return SweepPace(every=every, pieces=pieces, requests=requests, between=every / pieces)


def next_piece(pace: SweepPace, began: datetime, done: int) -> datetime:
    """Return when the next piece of a sweep is due that `began` then and of which so many pieces are done."""
    return began + pace.between * done


def endpoint_every(per_day: float, shortest: timedelta = timedelta(hours=1)) -> timedelta:
    """Return the time between two looks at our endpoint: `shortest`, or three hours where an hour costs too much."""
    affords = per_day * CHECK_SHARE >= timedelta(days=1) / shortest
    return shortest if affords else max(shortest, timedelta(hours=3))
