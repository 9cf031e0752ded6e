"""How soon a lost webhook is found: simulated days of accounts, vendors and losses. Nothing is measured here.

The functions that decide in the daemon decide here too (`gapless.reconcile`: purse, heartbeat, lateness, urgency, pace,
window, reading_plan), and are told what the daemon would know: its own webhooks, what its readings showed, and the
declared facts of the vendor. The grant's transactions, the rhythm, the lag of webhooks and the delay of the list are
learned on the way. What is assumed of the world stands in `ASSUMED`, `RHYTHMS` and `VENDORS`.
"""

import heapq
import math
import random
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import accumulate
from statistics import NormalDist
from typing import Any, Final

from figures import Bar, spread, table

from gapless.domain import HOURS_OF_WEEK
from gapless.reconcile.heartbeat import LONGEST, StreamLoad, learned_rates
from gapless.reconcile.lateness import LEARNED_FROM, LEAST_LAGS, AgeCounts, learned_grace, settle_time
from gapless.reconcile.pace import (
    SweepPace,
    endpoint_every,
    head_reach,
    is_deep,
    latest_next_pass,
    next_piece,
    reading_wishes,
)
from gapless.reconcile.purse import (
    Allowance,
    Purpose,
    affordable_at,
    allow,
    filled,
    first_affordable,
    granted,
    may_spend,
    new_purse,
    paid_at,
    spend,
    spendable,
)
from gapless.reconcile.reading_plan import ReadingFacts, ReadingPlan, in_words, plan_reading
from gapless.reconcile.urgency import FIRST_WAIT, Look, Reason, first_look, next_look, silent_look, sooner
from gapless.reconcile.window import claimed_up_to, plan_pass, recorded_up_to, sweep_depth
from gapless.text import format_span
from gapless_reconcilers.providers.stripe import Stripe

BEGAN: Final = datetime(2026, 11, 2, tzinfo=UTC)
BEGAN_HOUR: Final = int(BEGAN.timestamp()) // 3600
MINUTE, HOUR, DAY, WEEK = 60.0, 3600.0, 86_400.0, 604_800.0
LAG_MEDIAN_S, LAG_P999_S = 1.0, 12.0
LIST_P999_TIMES: Final = 8.0
GAP_S: Final = 0.7
PER_TRANSACTION: Final = 4
SINGLE, PARTIAL = 0.001, 0.05
REQUEST_S: Final = 0.3
LOOKBACK: Final = timedelta(minutes=15)
SWEEP_EVERY: Final = timedelta(days=1)
FIRST_TRANSACTIONS: Final = 360
QUANTILES: Final = 10_000
NEVER: Final = math.inf
MEDIAN_S, P99_S = 45.0, 60.0
"""The bars, unless the vendor's shortest interval is longer; to the p99 the vendor's grace is added."""
ASSUMED: Final = (
    ("webhook lag", "1 s at the median, 12 s at p99.9 (log-normal)"),
    ("list delay", "log-normal, p99.9 is 8 times the median; the median is in the table of vendors"),
    ("transactions", "4 events each, 0.7 s apart on average (exponential)"),
    ("single", "0.1 % of all webhooks are lost without a trace and never sent again"),
    ("5 %", "so many are lost in one hour of day 6, and of day 17"),
    ("down", "the daemon is down for 20 minutes once a week; the vendor tries again as the table says"),
    ("off", "the endpoint is off for 6 hours of day 23, and nothing of that time is sent again"),
    ("requests", "0.3 s each, one after the other within a reading"),
    ("wait", "from occurred to recorded, less the time in which the daemon was down; delivery comes on top"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How many events come, and when."""

    name: str
    a_day: int
    day_swing: float = 0.8
    """How far the hours of a day differ from their average."""
    weekend: float = 0.6
    burst: float = 1.0
    """In one hour of ten, at random, so many times as much comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """The declared facts of a vendor, which the daemon knows, and (last) those that it has to learn."""

    name: str
    floor: int | None
    """Requests granted in `period`; None: the vendor names no grant."""
    period: timedelta = timedelta(days=30)
    per_transaction: int = 0
    page: int = 100
    rate: float = 20.0
    grace: timedelta = timedelta(minutes=1)
    history: timedelta | None = timedelta(days=30)
    shortest: timedelta = FIRST_WAIT
    walks: bool = False
    """The list has no filter by time: it is read from the newest down."""
    details: bool = False
    """A list shows that an event exists; each must be requested by itself."""
    unlisted_while_off: bool = False
    streams: tuple[float, ...] = (1.0,)
    """The share of the events that each stream has."""
    list_delay_s: float = 1.0
    retries_s: tuple[float, ...] = ()


RHYTHMS: Final = {
    each.name: each
    for each in (
        Rhythm(name="quiet", a_day=20),
        Rhythm(name="shop", a_day=2_000),
        Rhythm(name="bursty", a_day=2_000, burst=6.0),
        Rhythm(name="platform", a_day=200_000, day_swing=0.5, weekend=0.8),
        Rhythm(name="5,000 a day", a_day=5_000, day_swing=0.5, weekend=0.8),
        Rhythm(name="12,000 a day", a_day=12_000, day_swing=0.5, weekend=0.8),
        Rhythm(name="20,000 a day", a_day=20_000, day_swing=0.5, weekend=0.8),
    )
}
_STRIPE: Final = Vendor(
    name="Stripe",
    floor=10_000,
    per_transaction=500,
    list_delay_s=0.8,
    retries_s=(5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR),
)
VENDORS: Final = {
    each.name: each
    for each in (
        _STRIPE,
        replace(_STRIPE, name="Stripe floor", per_transaction=0),
        Vendor(
            name="GitHub",
            floor=5_000,
            period=timedelta(hours=1),
            rate=5,
            grace=timedelta(minutes=5),
            history=timedelta(days=3),
            walks=True,
            details=True,
            unlisted_while_off=True,
            list_delay_s=10,
        ),
        Vendor(
            name="Shopify",
            floor=24,
            period=timedelta(minutes=1),
            page=250,
            rate=2,
            grace=timedelta(minutes=2),
            history=timedelta(days=60),
            streams=(0.8, 0.15, 0.05),
            list_delay_s=2,
            retries_s=(10 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR),
        ),
        Vendor(
            name="PayPal",
            floor=None,
            rate=2,
            grace=timedelta(minutes=5),
            shortest=timedelta(seconds=60),
            list_delay_s=5,
            retries_s=(5 * MINUTE, 30 * MINUTE, 2 * HOUR, 12 * HOUR),
        ),
        Vendor(
            name="GoCardless",
            floor=1_000,
            period=timedelta(minutes=1),
            page=500,
            rate=10,
            grace=timedelta(minutes=3),
            history=timedelta(days=540),
            list_delay_s=3,
            retries_s=(5 * MINUTE, HOUR, 6 * HOUR),
        ),
        Vendor(
            name="Chargebee",
            floor=150,
            period=timedelta(minutes=1),
            rate=2,
            history=timedelta(days=90),
            list_delay_s=1,
            retries_s=(2 * MINUTE, 6 * MINUTE, 30 * MINUTE, HOUR, 5 * HOUR),
        ),
    )
}
FLOORS: Final = ("5,000 a day", "12,000 a day", "20,000 a day")
"""Rhythms that show how much a floor can carry: only accounts at Stripe's have them."""
IMPOSSIBLE: Final = {("Stripe floor", "platform"): "listing its 2,000 pages a day once takes six times the floor"}


def quantiles(median_s: float, p999_s: float) -> list[float]:
    """Return evenly likely values of a log-normal distribution."""
    sigma = math.log(p999_s / median_s) / NormalDist().inv_cdf(0.999)
    normal = NormalDist(math.log(median_s), sigma)
    return [math.exp(normal.inv_cdf((at + 0.5) / QUANTILES)) for at in range(QUANTILES)]


@dataclass(frozen=True, slots=True)
class Loss:
    """An event whose webhook was not recorded when it was sent."""

    occurred: float
    place: int
    """Its quantile of the list's delay."""
    cause: str
    from_s: float
    """When the daemon could first have known: occurred, or the end of a downtime."""
    failed: float | None = None
    """When the vendor saw that it failed, and began to try again; None: never."""


@dataclass(slots=True)
class Flow:
    """The events of one stream: all of them by time, those whose webhook came by its time, and the losses."""

    occurred: "array[float]"
    arrived: "array[float]"
    arrived_occurred: "array[float]"
    arrived_place: "array[int]"
    charges: "array[float]"
    """When a webhook of each transaction (its `charge.succeeded`) came, where it came."""
    losses: list[Loss]

    def count(self, start: float, end: float) -> int:
        """Return how many events occurred in `[start, end)`."""
        return bisect_left(self.occurred, end) - bisect_left(self.occurred, start)


@dataclass(frozen=True, kw_only=True)
class Calendar:
    """When things go wrong, in seconds; a short simulation has each sooner."""

    days: float

    @cached_property
    def downs(self) -> list[tuple[float, float]]:
        """Return the times in which the daemon is down."""
        weeks = [2.4 * DAY + week * WEEK for week in range(5)]
        return [(start, start + 20 * MINUTE) for start in weeks if start < self.days * DAY - HOUR]

    @cached_property
    def partial(self) -> list[tuple[float, float]]:
        """Return the hours in which 5 % are lost."""
        return [(share * self.days * DAY, share * self.days * DAY + HOUR) for share in (0.2, 0.57)]

    @cached_property
    def off(self) -> tuple[float, float]:
        """Return the time in which the endpoint is off."""
        start = 0.76 * self.days * DAY
        return start, start + 6 * HOUR

    @cached_property
    def spans(self) -> list[tuple[float, float]]:
        """Return all times in which more is lost than single webhooks."""
        return [*self.partial, *self.downs, self.off]


def _is_in(time: float, spans: Iterable[tuple[float, float]]) -> bool:
    return any(start <= time < end for start, end in spans)


def make_flow(rhythm: Rhythm, share: float, calendar: Calendar, rng: random.Random, *, single: float = SINGLE) -> Flow:
    """Return the events of a stream that has this share of the account's; of its webhooks, `single` are lost."""
    starts = sorted(_starts(rhythm, share, calendar.days, rng))
    times = sorted(start + gap for start in starts for gap in _gaps(rng))
    lags = rng.choices(quantiles(LAG_MEDIAN_S, LAG_P999_S), k=len(times))
    places = rng.choices(range(QUANTILES), k=len(times))
    losses, arrivals = list[Loss](), list[tuple[float, float, int]]()
    bad = {hour for start, end in calendar.spans for hour in range(int(start // HOUR), int(end // HOUR) + 1)}
    for occurred, lag, place in zip(times, lags, places, strict=True):
        chance, sent = rng.random(), occurred + lag
        is_single = chance < single
        cause = "single" if is_single else _cause(occurred, sent, calendar, chance) if sent // HOUR in bad else None
        if cause is None:
            arrivals.append((sent, occurred, place))
        else:
            losses.append(_loss(occurred, sent, place, cause, calendar))
    arrivals.sort()
    return Flow(
        occurred=array("d", times),
        arrived=array("d", [each[0] for each in arrivals]),
        arrived_occurred=array("d", [each[1] for each in arrivals]),
        arrived_place=array("H", [each[2] for each in arrivals]),
        charges=array("d", [each + LAG_P999_S for each in starts if not _is_in(each, calendar.spans)]),
        losses=losses,
    )


def _cause(occurred: float, sent: float, calendar: Calendar, chance: float) -> str | None:
    if chance < PARTIAL and _is_in(occurred, calendar.partial):
        return "5 %"
    if _is_in(sent, calendar.downs):
        return "down"
    return "off" if calendar.off[0] <= sent < calendar.off[1] else None


def _loss(occurred: float, sent: float, place: int, cause: str, calendar: Calendar) -> Loss:
    down_to = next((end for start, end in calendar.downs if start <= occurred < end or start <= sent < end), occurred)
    return Loss(occurred=occurred, place=place, cause=cause, from_s=down_to, failed=sent if cause == "down" else None)


def _gaps(rng: random.Random) -> list[float]:
    """Return how long after its first one each event of a transaction occurs."""
    return [0.0, *accumulate(rng.expovariate(1 / GAP_S) for _ in range(PER_TRANSACTION - 1))]


def _starts(rhythm: Rhythm, share: float, days: float, rng: random.Random) -> Iterator[float]:
    """Yield when transactions begin, in no order."""
    transactions = rhythm.a_day * share / PER_TRANSACTION / 24
    calm = (1 - 0.1 * rhythm.burst) / 0.9
    for hour in range(int(days * 24)):
        weekday = hour // 24 % 7
        rate = transactions * (1 + rhythm.day_swing * math.sin((hour % 24 - 8) / 24 * 2 * math.pi))
        rate *= (rhythm.weekend if weekday >= 5 else 1) * 7 / (5 + 2 * rhythm.weekend)
        if rhythm.burst > 1:
            rate *= rhythm.burst if rng.random() < 0.1 else calm
        for _ in range(_poisson(rate, rng)):
            yield (hour + rng.random()) * HOUR


def _poisson(mean: float, rng: random.Random) -> int:
    if mean > 50:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    count, left = 0, math.exp(-mean)
    product = rng.random()
    while product > left:
        count += 1
        product *= rng.random()
    return count


def at(seconds: float) -> datetime:
    """Return the simulated moment."""
    return BEGAN + timedelta(seconds=seconds)


def seconds_of(moment: datetime) -> float:
    """Return the simulated second of a moment."""
    return (moment - BEGAN).total_seconds()


@dataclass(slots=True)
class StreamState:
    """What the daemon knows of a stream."""

    name: str
    flow: Flow
    watermark: datetime = BEGAN
    last: datetime = BEGAN
    last_deep: datetime | None = None
    look: Look | None = None
    cost: float = 1.0
    group_began: float = -NEVER
    """When the last group of webhooks began, as `reads_siblings` counts them."""
    heard: int = 0
    """Webhooks of the flow that have come, as far as they were looked at."""
    lacking: list[tuple[float, float]] = field(default_factory=list)
    """(occurred, shown) of events that a webhook brought and the last reading did not show."""
    open: list[Loss] = field(default_factory=list)
    """Losses that occurred and are not recorded; the daemon does not know them."""
    next_loss: int = 0
    turn: int = 0
    """The number of the turn that is planned; an older one is void."""
    purpose: Purpose = Purpose.START
    """What the planned turn is for."""


@dataclass(slots=True)
class Learned:
    """Ages by day, of which a week counts."""

    days: defaultdict[int, AgeCounts] = field(default_factory=lambda: defaultdict(AgeCounts))

    def add(self, now: float, age_s: float, times: int = 1) -> None:
        self.days[int(now // DAY)].add(age_s, times)

    def merged(self, now: float) -> AgeCounts:
        week = AgeCounts()
        for day in [day for day in self.days if day < now // DAY - LEARNED_FROM.days]:
            del self.days[day]
        for counts in self.days.values():
            week.merge(counts.counts)
        return week


@dataclass(slots=True, kw_only=True)
class SweepState:
    """A sweep that has begun."""

    pace: SweepPace
    began: float
    start: float
    width: float
    done: int = 0


class Simulation:
    """One account at one vendor, for some days."""

    def __init__(self, vendor: Vendor, rhythm: Rhythm, calendar: Calendar, flows: list[Flow], seed: int = 1) -> None:
        self.vendor, self.rhythm, self.calendar = vendor, rhythm, calendar
        self.streams = [StreamState(name=str(number), flow=flow) for number, flow in enumerate(flows)]
        self.delays = quantiles(vendor.list_delay_s, vendor.list_delay_s * LIST_P999_TIMES)
        self.capabilities = replace(Stripe.capabilities, grace=vendor.grace, history=vendor.history)
        self.rng = random.Random(seed)
        self.sample = max(1, rhythm.a_day // 20_000)
        self.lags, self.shown = Learned(), Learned()
        self.settle, self.unit = settle_time(None), timedelta(seconds=1)
        self.by_hour: defaultdict[int, int] = defaultdict(int)
        self.groups_by_day: defaultdict[int, int] = defaultdict(int)
        self.before: list[float] = []
        """When the transactions occurred that the first start has listed."""
        self.last_webhook = -NEVER
        self.silence_looked = 0.0
        self.unhealthy = False
        self.details: list[tuple[Loss, float]] = []
        self.made: list[tuple[float, int]] = []
        self.grants: list[tuple[float, int]] = []
        self.by_purpose: defaultdict[str, int] = defaultdict(int)
        self.waits: list[tuple[str, float]] = []
        self.unlisted = self.retried = 0
        self.detail_wait_s = 0.0
        self.sweep: SweepState | None = None
        self.queue: list[tuple[float, int, str, int, int]] = []
        self.pushed = 0
        self.now = 0.0
        self._list_transactions()
        self.allowance = self._allowance()
        self.purse = None if self.allowance is None else new_purse(BEGAN)
        self.plan: ReadingPlan = self._plan()

    # --- the world -----------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Simulate all days; return the row of the table."""
        self._start(0.0)
        for kind, first in (("plan", HOUR), ("endpoint", 0.0), ("account", 0.0), ("sweep", DAY)):
            self._push(first, kind)
        for start, end in self.calendar.downs:
            self._push(end, "up")
            self._push(start, "down")
        down_to = 0.0
        while self.queue:
            now, _, kind, number, turn = heapq.heappop(self.queue)
            if now >= self.calendar.days * DAY:
                break
            if now < down_to and kind != "up":
                self._push(down_to + 1, kind, number, turn)
                continue
            self.now = now
            if kind == "down":
                down_to = now + 20 * MINUTE
            elif kind == "up":
                self._start(now)
            elif kind == "head":
                self._head(self.streams[number], turn)
            else:
                getattr(self, f"_{kind}_turn")()
        return self.row()

    def _push(self, when: float, kind: str, number: int = 0, turn: int = 0) -> None:
        self.pushed += 1
        heapq.heappush(self.queue, (when, self.pushed, kind, number, turn))

    def _list_transactions(self) -> None:
        """List the newest transactions of the time before, as the first start does."""
        if self.vendor.per_transaction:
            a_day = self.rhythm.a_day / PER_TRANSACTION
            known = min(FIRST_TRANSACTIONS, int(30 * a_day))
            self.before = sorted(-self.rng.random() * known / a_day * DAY for _ in range(known))
            self.made.append((0.0, math.ceil(known / self.vendor.page)))
            self.by_purpose[Purpose.START.value] += self.made[-1][1]

    def _comes_again(self, loss: Loss) -> float:
        """Return when the webhook comes after all."""
        if loss.failed is None:
            return NEVER
        tries = (loss.failed + wait for wait in self.vendor.retries_s)
        return next((time for time in tries if not _is_in(time, self.calendar.downs)), NEVER)

    def _start(self, now: float) -> None:
        for number, stream in enumerate(self.streams):
            self._urge(stream, Reason.START, now)
            self._plan_head(number)

    def _urge(self, stream: StreamState, reason: Reason, now: float) -> None:
        look = first_look(reason, at(now), self.plan.heartbeats.interval(stream.name, at(now)), self.vendor.shortest)
        stream.look = sooner(stream.look, look)

    def _delay(self, place: int) -> float:
        return self.delays[place]

    # --- what the daemon hears -----------------------------------------------------------------------------------

    def _hear(self, stream: StreamState, now: float) -> None:
        """Take in the webhooks that have come, and learn from them; see which of them the list does not show yet."""
        flow, first = stream.flow, stream.heard
        last = bisect_right(flow.arrived, now, lo=first)
        if first == last:
            return
        stream.heard = last
        self.by_hour[BEGAN_HOUR + int(now // HOUR)] += last - first
        settle_s, groups = self.settle.total_seconds(), 0
        for arrived in flow.arrived[first:last]:
            if arrived - stream.group_began > settle_s:
                groups += 1
                stream.group_began = arrived
        self.groups_by_day[int(now // DAY)] += groups
        for number in range(first, last, self.sample):
            self.lags.add(now, flow.arrived[number] - flow.arrived_occurred[number])
        self.last_webhook, self.silence_looked, self.unhealthy = max(arrived, self.last_webhook), 0.0, False

    def _see(self, stream: StreamState, first: int, now: float) -> None:
        """Compare what webhooks brought with what the list shows now."""
        flow, delays, still = stream.flow, self.delays, list[tuple[float, float]]()
        for occurred, shown in stream.lacking:
            if shown <= now:
                self.shown.add(now, now - occurred)
            else:
                still.append((occurred, shown))
        declared_s = self.vendor.grace.total_seconds()
        for number in range(first, stream.heard, self.sample):
            occurred = flow.arrived_occurred[number]
            shown = occurred + delays[flow.arrived_place[number]]
            if shown > now:
                still.append((occurred, shown))
            elif now - occurred < declared_s:
                self.shown.add(now, now - occurred)
        stream.lacking = still

    # --- what the daemon decides ---------------------------------------------------------------------------------

    def _allowance(self) -> Allowance | None:
        if self.vendor.floor is None:
            return None
        month_ago = self.now - self.vendor.period.total_seconds()
        known = len(self.before) - bisect_left(self.before, month_ago)
        for stream in self.streams:
            known += bisect_right(stream.flow.charges, self.now) - bisect_left(stream.flow.charges, month_ago)
        grant = granted(floor=self.vendor.floor, per_transaction=self.vendor.per_transaction, transactions=known)
        self.grants.append((self.now, grant))
        return allow(grant, self.vendor.period)

    def _plan(self) -> ReadingPlan:
        rates = learned_rates(self.by_hour, BEGAN, at(self.now))
        days = max(self.now / DAY, 1 / 24)
        recent = sum(count for day, count in self.groups_by_day.items() if day >= self.now // DAY - 7)
        groups = recent / min(days, 7 + self.now % DAY / DAY)
        heard = [stream.heard / days for stream in self.streams]
        self.facts = ReadingFacts(
            allowance=self.allowance,
            streams={
                stream.name: StreamLoad(rate=rate, cost=stream.cost)
                for stream, rate in zip(self.streams, heard, strict=True)
            },
            rates=rates,
            groups_a_day=groups,
            settle=self.settle,
            page=self.vendor.page,
            rate=self.vendor.rate,
            sweep_depth=sweep_depth(self.vendor.history),
            sweep_every=SWEEP_EVERY,
            history=self.vendor.history,
            shortest=self.vendor.shortest,
        )
        self.rates, self.groups_a_day = rates, groups
        return plan_reading(self.facts)

    def _plan_turn(self) -> None:
        """Learn, and plan anew: each hour of the first day, then each six hours."""
        for stream in self.streams:
            self._hear(stream, self.now)
        lags, shown = self.lags.merged(self.now), self.shown.merged(self.now)
        lag = lags.percentile(0.999) if lags.total >= LEAST_LAGS else None
        self.settle = settle_time(lag)
        grace = learned_grace(
            declared=self.vendor.grace,
            settle=self.settle,
            unit=self.unit,
            shown_p999=shown.percentile(0.999),
            webhook_lag_p999=lag,
            samples=shown.total,
        )
        self.capabilities = replace(self.capabilities, grace=grace)
        self.allowance = self._allowance()
        self._fill()
        self.plan = self._plan()
        self._look_into_silence()
        self._push(self.now + (HOUR if self.now < DAY else 6 * HOUR), "plan")

    def _look_into_silence(self) -> None:
        events = sum(self.rates) / 7
        if not events or self.last_webhook < 0:
            return
        hours = range(int(self.last_webhook // HOUR) + 1, int(self.now // HOUR))
        expected = sum(self.rates[(BEGAN_HOUR + hour) % HOURS_OF_WEEK] for hour in hours) * self.groups_a_day / events
        found = silent_look(expected, self.silence_looked)
        if found is not None:
            self.silence_looked = found
            for number, stream in enumerate(self.streams):
                self._urge(stream, Reason.SILENCE, self.now)
                self._plan_head(number)

    def _fill(self) -> None:
        if self.purse is not None and self.allowance is not None:
            self.purse = filled(self.purse, self.allowance, at(self.now))

    def _pay(self, purpose: Purpose, requests: int) -> float:
        """Make requests; return when the last of them is made: those that the purse lacks wait until it is refilled."""
        self.by_purpose[purpose.value] += requests
        if self.purse is None or self.allowance is None:
            self.made.append((self.now, requests))
            return self.now
        self._fill()
        last = self.now if purpose is Purpose.HISTORY else seconds_of(paid_at(self.purse, self.allowance, requests))
        waiting = requests - int(spendable(self.purse, self.allowance, Purpose.URGENT)) if last > self.now else 0
        waiting = min(max(waiting, 0), requests)
        self.made.append((self.now, requests - waiting))
        self.made += [(self.now + (last - self.now) * (number + 1) / waiting, 1) for number in range(waiting)]
        self.purse = spend(self.purse, requests)
        return last

    def _may(self, purpose: Purpose, requests: float) -> bool:
        self._fill()
        return self.purse is None or self.allowance is None or may_spend(self.purse, self.allowance, purpose, requests)

    def _wait_for(self, purpose: Purpose, requests: float) -> float:
        assert self.purse is not None
        assert self.allowance is not None
        return max(self.now + 1, seconds_of(affordable_at(self.purse, self.allowance, purpose, requests)))

    # --- heads ---------------------------------------------------------------------------------------------------

    def _wishes(self, stream: StreamState, newest: float | None, oldest: float | None) -> tuple[datetime, Purpose]:
        wishes = reading_wishes(
            last=stream.last,
            beat=self.plan.heartbeats.interval(stream.name, stream.last),
            settle=self.settle,
            shortest=self.vendor.shortest,
            webhook=None if newest is None else at(newest),
            unread=None if oldest is None else at(oldest),
            urgent=None if stream.look is None else stream.look.due,
            latest=latest_next_pass(self.vendor.history, stream.watermark),
            overdue=LONGEST if self.details else None,
        )
        if self.purse is None or self.allowance is None:
            return min((due, purpose) for purpose, due in wishes.items())
        return first_affordable(self.purse, self.allowance, wishes, stream.cost)

    def _next(self, stream: StreamState) -> tuple[float, Purpose]:
        """Return when and why the stream is read next, looking ahead over the webhooks that come until then."""
        self._fill()
        beat, settle_s = self.plan.heartbeats.interval(stream.name, stream.last), self.settle.total_seconds()
        flow, end = stream.flow, seconds_of(stream.last + beat)
        first = bisect_right(flow.arrived, seconds_of(stream.last) - settle_s)
        oldest = newest = None
        if first < len(flow.arrived) and flow.arrived[first] <= end:
            if beat > self.vendor.shortest:
                self._hear_late(stream, first, end)
            if self.plan.siblings:
                oldest = flow.arrived[first]
                newest = flow.arrived[bisect_right(flow.arrived, min(oldest + settle_s, end), lo=first) - 1]
        due, purpose = self._wishes(stream, newest, oldest)
        return max(seconds_of(due), self.now), purpose

    def _hear_late(self, stream: StreamState, first: int, end: float) -> None:
        """Look again after the first webhook to come from now on, and until `end`, that is later than settle."""
        flow, settle_s = stream.flow, self.settle.total_seconds()
        for number in range(first, bisect_right(flow.arrived, end, lo=first)):
            arrived = flow.arrived[number]
            if arrived > self.now and arrived - flow.arrived_occurred[number] > settle_s:
                self._urge(stream, Reason.LATE, arrived)
                return

    def _plan_head(self, number: int) -> None:
        stream = self.streams[number]
        stream.turn += 1
        due, stream.purpose = self._next(stream)
        self._push(due, "head", number, stream.turn)

    def _head(self, stream: StreamState, turn: int) -> None:
        """Read the head of a stream, if it is still its turn."""
        number = int(stream.name)
        if turn != stream.turn:
            return
        if not self._may(stream.purpose, stream.cost * 0.999):  # something else was paid for meanwhile
            self.now += 0.01  # what is lacking may be a rounding error
            self._plan_head(number)
            return
        now, first = self.now, stream.heard
        self._hear(stream, now)
        deep = is_deep(stream.last_deep, LOOKBACK, at(now))
        known = self.capabilities
        reach = head_reach(deep=deep, lookback=LOOKBACK, grace=known.grace, cost=stream.cost)
        window = plan_pass(
            watermark=stream.watermark,
            complete_from=BEGAN,
            now=at(now),
            provider_now=at(now),
            lookback=min(reach, LOOKBACK),
            capabilities=known,
        ).window
        found = False
        if window is not None:
            start = seconds_of(window.start)
            pages = self._pages(stream, start, now)
            paid = self._pay(stream.purpose, pages)
            stream.cost += 0.05 * (pages - stream.cost)
            self._see(stream, first, now)
            record_to = seconds_of(recorded_up_to(at(now), self.settle))
            found = self._find(stream, start, record_to, now, paid + REQUEST_S * pages)
            stream.watermark = max(claimed_up_to(at(now), known.grace, known.resolution), BEGAN)
            if deep:
                stream.last_deep = at(now)
        self._look_again(stream, found)
        stream.last = at(now)
        self._plan_head(number)

    def _pages(self, stream: StreamState, start: float, end: float) -> int:
        if not self.vendor.walks:
            return max(1, math.ceil(stream.flow.count(start, end) / self.vendor.page))
        down_to = start - self.vendor.grace.total_seconds()  # a walk ends below a whole page that lies before it
        whole = math.ceil(stream.flow.count(down_to, end) / self.vendor.page)
        return max(1, min(whole + 1, math.ceil(stream.flow.count(0, end) / self.vendor.page)))

    def _look_again(self, stream: StreamState, found: bool) -> None:
        now, beat = at(self.now), self.plan.heartbeats.interval(stream.name, at(self.now))
        look = stream.look
        if look is not None and look.due <= now and not (found and look.reason is Reason.ENDPOINT):
            goes_on = found or (look.reason is Reason.ENDPOINT and self.unhealthy)
            stream.look = next_look(look, now, beat, goes_on=goes_on)
        elif found:
            self._urge(stream, Reason.FIND, self.now)

    def _find(self, stream: StreamState, start: float, record_to: float, now: float, done: float) -> bool:
        """Record the losses that the list shows from `start` to `record_to`. Return True if there are any.

        The list shows times in whole seconds.
        """
        losses = stream.flow.losses
        while stream.next_loss < len(losses) and losses[stream.next_loss].occurred <= now:
            stream.open.append(losses[stream.next_loss])
            stream.next_loss += 1
        if not stream.open:
            return False
        still, found = list[Loss](), False
        for loss in stream.open:
            if self.vendor.unlisted_while_off and loss.cause == "off":
                self.unlisted += 1
            elif self._comes_again(loss) <= now:
                self.retried += 1
            elif start <= int(loss.occurred) <= record_to and loss.occurred + self._delay(loss.place) <= now:
                found = True
                self._recover(loss, done)
            else:
                still.append(loss)
        stream.open = still
        return found

    def _recover(self, loss: Loss, done: float) -> None:
        if not self.vendor.details:
            self.waits.append((loss.cause, done - loss.from_s))
            return
        if not self.details:
            self._push(done, "detail")
        self.details.append((loss, done))

    # --- the rest ------------------------------------------------------------------------------------------------

    def _detail_turn(self) -> None:
        """Request missing events one by one, as many in a second as the rate and the purse allow."""
        self._fill()
        if not self.details:
            return
        affords = math.inf
        if self.purse is not None and self.allowance is not None:
            affords = spendable(self.purse, self.allowance, Purpose.DETAIL)
        count = int(min(len(self.details), self.vendor.rate, affords))
        if not count:
            self._push(self._wait_for(Purpose.DETAIL, 1), "detail")
            return
        self._pay(Purpose.DETAIL, count)
        self.detail_wait_s = max(self.detail_wait_s, self.now - self.details[0][1])
        for loss, _ in self.details[:count]:
            self.waits.append((loss.cause, self.now + REQUEST_S - loss.from_s))
        del self.details[:count]
        if self.details:
            self._push(self.now + 1, "detail")

    def _endpoint_turn(self) -> None:
        if not self._may(Purpose.ENDPOINT, 1):
            self._push(self._wait_for(Purpose.ENDPOINT, 1), "endpoint")
            return
        self._pay(Purpose.ENDPOINT, 1)
        start, end = self.calendar.off
        self.unhealthy = start <= self.now < end
        if self.unhealthy:
            for number, stream in enumerate(self.streams):
                self._urge(stream, Reason.ENDPOINT, self.now)
                self._plan_head(number)
        self._push(self.now + self._endpoint_every(), "endpoint")

    def _endpoint_every(self) -> float:
        return endpoint_every(math.inf if self.allowance is None else self.allowance.per_day).total_seconds()

    def _account_turn(self) -> None:
        if not self._may(Purpose.ACCOUNT, 1):
            self._push(self._wait_for(Purpose.ACCOUNT, 1), "account")
            return
        self._pay(Purpose.ACCOUNT, 1)
        every = self._endpoint_every()
        self._push(self.now + (HOUR if every == HOUR else DAY), "account")

    def _sweep_turn(self) -> None:
        """Read one piece of a sweep, or begin one."""
        if self.sweep is None:
            assert self.plan.sweeps is not None
            first = self.plan.sweeps.every.total_seconds()
            if self.now < first:
                self._push(first, "sweep")
                return
            end = self.now - LOOKBACK.total_seconds()
            start = max(0.0, end - sweep_depth(self.vendor.history).total_seconds())
            self.sweep = SweepState(pace=self.plan.sweeps, began=self.now, start=start, width=end - start)
        sweep, pace = self.sweep, self.sweep.pace
        if not self._may(Purpose.SWEEP, pace.requests):
            self._push(self._wait_for(Purpose.SWEEP, pace.requests), "sweep")
            return
        start, end = (sweep.start + sweep.width * number / pace.pieces for number in (sweep.done, sweep.done + 1))
        events = sum(stream.flow.count(start, end) for stream in self.streams)
        pages = max(1, math.ceil(events / self.vendor.page))
        paid = self._pay(Purpose.SWEEP, pages)
        for stream in self.streams:
            self._find(stream, start, end, self.now, paid + REQUEST_S * pages)
        sweep.done += 1
        if sweep.done == pace.pieces:
            self.sweep = None
        self._push(max(self.now + 1, seconds_of(next_piece(pace, at(sweep.began), sweep.done))), "sweep")

    # --- the result ----------------------------------------------------------------------------------------------

    def row(self) -> dict[str, Any]:
        """Return what came of it."""
        end = self.calendar.days * DAY - HOUR
        return {
            "vendor": self.vendor.name,
            "rhythm": self.rhythm.name,
            "waits": self.waits,
            "still_lost": sum(loss.occurred < end for stream in self.streams for loss in stream.open)
            + sum(loss.occurred < end for loss, _ in self.details),
            "unlisted": self.unlisted,
            "requests": sum(count for _, count in self.made),
            "by_purpose": dict(self.by_purpose),
            "grant_used": self._most_used(),
            "settle_s": self.settle.total_seconds(),
            "grace_s": self.capabilities.grace.total_seconds(),
            "is_short": any(
                self.plan.heartbeats.limited(stream.name, hour) > 1.1 * self.vendor.shortest.total_seconds()
                for stream in self.streams
                for hour in range(HOURS_OF_WEEK)
            ),
            "detail_wait_s": self.detail_wait_s,
            "plan": in_words(self.plan),
        }

    def _most_used(self) -> float | None:
        """Return the most that any period used, as a share of the grant as it was known at its end; None: no grant."""
        if not self.grants:
            return None
        period, used, oldest, known, most = self.vendor.period.total_seconds(), 0, 0, 0, 0.0
        made = sorted(self.made)
        for time, count in made:
            used += count
            while made[oldest][0] <= time - period:
                used -= made[oldest][1]
                oldest += 1
            while known + 1 < len(self.grants) and self.grants[known + 1][0] <= time:
                known += 1
            most = max(most, used / self.grants[known][1])
        return most


SHARES: Final = (("median_s", 0.5), ("p95_s", 0.95), ("p99_s", 0.99), ("longest_s", 1.0))


def share_of(ordered: list[float], share: float) -> float | None:
    """Return the value that this share does not exceed; None: there are none."""
    return round(ordered[max(0, math.ceil(len(ordered) * share) - 1)], 1) if ordered else None


def pooled(accounts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one row of several accounts: all their losses, and the requests of the one that made most."""
    worst = max(accounts, key=lambda row: row["grant_used"] or row["requests"])
    waits = [wait for row in accounts for wait in row.pop("waits")]
    every, single = sorted(wait for _, wait in waits), sorted(wait for cause, wait in waits if cause == "single")
    return {
        **worst,
        "accounts": len(accounts),
        "losses": len(every),
        "still_lost": sum(row["still_lost"] for row in accounts),
        "unlisted": sum(row["unlisted"] for row in accounts),
        "single": {"losses": len(single), **{name: share_of(single, share) for name, share in SHARES}},
        "all": {name: share_of(every, share) for name, share in SHARES},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is simulated."""

    days: float = 30.0
    vendors: tuple[str, ...] = tuple(VENDORS)
    rhythms: tuple[str, ...] = tuple(RHYTHMS)
    accounts: int = 3
    """Quiet accounts of a vendor, because one has too few losses to say anything."""


QUICK: Final = Plan(days=4.0, vendors=("Stripe", "Stripe floor", "GitHub"), rhythms=("quiet", "shop"), accounts=2)


def measure(plan: Plan, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """Simulate every vendor with every rhythm. The vendors of a rhythm see the same events."""
    rows, calendar = list[dict[str, Any]](), Calendar(days=plan.days)
    for rhythm in (RHYTHMS[name] for name in plan.rhythms):
        flows = dict[tuple[float, ...], list[list[Flow]]]()
        for vendor in (VENDORS[name] for name in plan.vendors):
            if not _is_simulated(vendor, rhythm):
                continue
            shares, accounts = vendor.streams, plan.accounts if rhythm.name == "quiet" else 1
            if shares not in flows:
                rngs = [random.Random(seed) for seed in range(accounts)]
                flows[shares] = [[make_flow(rhythm, share, calendar, rng) for share in shares] for rng in rngs]
            rows.append(pooled([Simulation(vendor, rhythm, calendar, each).run() for each in flows[shares]]))
            note(f"{vendor.name}, {rhythm.name}: {rows[-1]['requests']:,} requests; {rows[-1]['plan']}")
    return rows


def _is_simulated(vendor: Vendor, rhythm: Rhythm) -> bool:
    return (vendor.name, rhythm.name) not in IMPOSSIBLE and (vendor.name == "Stripe floor" or rhythm.name not in FLOORS)


def median_bar(row: dict[str, Any]) -> float:
    """Return the median that is wanted, in seconds."""
    return max(MEDIAN_S, 0.9 * VENDORS[row["vendor"]].shortest.total_seconds())


def p99_bar(row: dict[str, Any]) -> float:
    """Return the p99 that is wanted, in seconds."""
    return P99_S + VENDORS[row["vendor"]].grace.total_seconds()


def missed(row: dict[str, Any]) -> list[str]:
    """Return the names of the bars that a row misses."""
    found, used = row["all"], row["grant_used"]
    wanted = (("median_s", median_bar(row)), ("p99_s", p99_bar(row)), ("longest_s", DAY))
    names = [name.removesuffix("_s") for name, bar in wanted if found[name] is not None and found[name] > bar]
    return names + ["grant"] * (used is not None and used > 1) + ["still lost"] * (row["still_lost"] > 0)


def limit(row: dict[str, Any]) -> str:
    """Return what keeps a row from its bars: the grant, where the plan says so or details had to wait; "": nothing."""
    if row["is_short"]:
        return "the grant"
    return "the grant (a request for each)" if row["detail_wait_s"] > MINUTE else ""


def verdict(row: dict[str, Any]) -> str:
    """Return what the table says of the bars."""
    names = missed(row)
    return f"MISSED: {', '.join(names)}; limit: {limit(row) or 'unknown'}" if names else "met"


def tables(rows: list[dict[str, Any]]) -> str:
    """Return what was found, and what it is assumed from."""
    heads = ["account", "losses", "single p50 / p99", "all p50 / p95 / p99 / longest", "still lost"]
    heads += ["requests", "most of grant", "bars"]
    lines = [
        [
            f"{row['vendor']}, {row['rhythm']}",
            f"{row['losses']:,}",
            spans(row["single"], "median_s", "p99_s"),
            spans(row["all"], *(name for name, _ in SHARES)),
            row["still_lost"],
            f"{row['requests']:,}",
            "no grant" if row["grant_used"] is None else f"{100 * row['grant_used']:.2g} %",
            verdict(row),
        ]
        for row in rows
    ]
    impossible = [[f"{vendor}, {rhythm}", why] for (vendor, rhythm), why in IMPOSSIBLE.items()]
    vendors = [
        [each.name, _grant(each), each.page, f"{each.list_delay_s:g} s", f"{each.grace.seconds} s", len(each.streams)]
        for each in VENDORS.values()
    ]
    rhythms = [[each.name, f"{each.a_day:,}", each.day_swing, each.weekend, each.burst] for each in RHYTHMS.values()]
    return "\n\n".join(
        (
            "Simulated: from lost to recorded\n\n" + table(heads, lines),
            table(["not simulated", "because"], impossible),
            table(["assumed", ""], ASSUMED),
            table(["vendor", "grant", "page", "list delay", "declared grace", "streams"], vendors),
            table(["rhythm", "events a day", "swing of a day", "weekend", "in a burst"], rhythms),
        )
    )


def bars(rows: list[dict[str, Any]]) -> list[Bar]:
    """Return the goals: the worst row of each. Recovery times are judged where the grant allows them."""
    free = [row for row in rows if not limit(row) and row["losses"]]
    worst = (
        ("recovery: median, of its bar", 1.0, [row["all"]["median_s"] / median_bar(row) for row in free]),
        ("recovery: p99, of its bar", 1.0, [row["all"]["p99_s"] / p99_bar(row) for row in free]),
        ("recovery: most of a grant used", 1.0, [row["grant_used"] for row in rows if row["grant_used"] is not None]),
        ("recovery: longest loss, days", 1.0, [row["all"]["longest_s"] / DAY for row in rows if row["losses"]]),
        ("recovery: still lost", 0.0, [float(row["still_lost"]) for row in rows]),
    )
    return [
        Bar(name=name, wanted=wanted, got=spread([max(values)]) if values else None, at_most=True)
        for name, wanted, values in worst
    ]


def spans(found: dict[str, Any], *names: str) -> str:
    """Return the figures of these names as people read them."""
    return " / ".join("-" if found[name] is None else _span(found[name]) for name in names)


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 100 * MINUTE else f"{seconds / HOUR:.1f} h"


def _grant(vendor: Vendor) -> str:
    if vendor.floor is None:
        return f"none; each {vendor.shortest.seconds} s at most"
    of_transactions = f"{vendor.per_transaction} a transaction, at least " if vendor.per_transaction else ""
    return f"{of_transactions}{vendor.floor:,} in {format_span(vendor.period)}"
