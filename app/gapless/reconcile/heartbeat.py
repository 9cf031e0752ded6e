"""Decide how often each stream is read in each hour of the week: the law by which a budget is shared. Pure.

A loss waits for half an interval on average, so the total waiting is least if an interval is proportional to
sqrt(cost / rate): where four times as many events come, it is worth reading twice as often.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Final

from gapless.domain import HOUR_US, HOURS_OF_WEEK, RHYTHM_FROM, to_us

SHORTEST, LONGEST = timedelta(seconds=30), timedelta(minutes=15)
LEAST_RATE = 0.05
"""An hour or a stream with fewer events than this share of the average is read as if it had so many."""
_DAY_S: Final = 86_400.0


def learned_rates(by_hour: Mapping[int, int], since: datetime, now: datetime) -> list[float]:
    """Return the events to expect in each hour of the week, from the counts by hour since 1970.

    The source was known from `since` on, of which at most the last eight weeks count. One week of average hours is
    mixed in, so the first hours already give a usable answer and the true rhythm shows after some weeks.
    """
    last = to_us(now) // HOUR_US
    first = max(to_us(since), to_us(now - RHYTHM_FROM)) // HOUR_US
    hours = max(last - first, 1)
    known = {hour: count for hour, count in by_hour.items() if first <= hour < last}
    average = sum(known.values()) / hours
    sums = [average] * HOURS_OF_WEEK
    for hour, count in known.items():
        sums[hour % HOURS_OF_WEEK] += count
    seen = [1 + hours // HOURS_OF_WEEK] * HOURS_OF_WEEK
    for hour in range(last - hours % HOURS_OF_WEEK, last):
        seen[hour % HOURS_OF_WEEK] += 1
    return [total / weeks for total, weeks in zip(sums, seen, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLoad:
    """What the law must know of a stream."""

    rate: float
    """Events a day."""
    cost: float = 1.0
    """Requests that one reading takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeats:
    """The interval of every stream in every hour of the week."""

    shortest: timedelta
    longest: timedelta
    """The configured one, or more if the budget forces it: nothing is ever read more rarely."""
    streams: Mapping[str, float]
    """Per stream the interval in seconds, in an average hour and before it is limited."""
    hours: Sequence[float]
    """By what it is multiplied in each hour of the week."""

    def interval(self, stream: str, at: datetime) -> timedelta:
        """Return the time between two readings of the stream. An unknown stream is read as rarely as any."""
        return timedelta(seconds=self.limited(stream, to_us(at) // HOUR_US % HOURS_OF_WEEK))

    def bounds(self) -> tuple[timedelta, timedelta]:
        """Return the shortest and the longest interval that any stream has in any hour."""
        if not self.streams:
            return self.longest, self.longest
        low, high = min(self.streams.values()) * min(self.hours), max(self.streams.values()) * max(self.hours)
        shortest, longest = (timedelta(seconds=min(each, self.longest.total_seconds())) for each in (low, high))
        return max(shortest, self.shortest), max(longest, self.shortest)

    def limited(self, stream: str, hour: int) -> float:
        """Return the stream's interval in that hour of the week, in seconds."""
        free = self.streams.get(stream, math.inf) * self.hours[hour]
        return min(max(free, self.shortest.total_seconds()), self.longest.total_seconds())


def plan_heartbeats(
    streams: Mapping[str, StreamLoad],
    rates: Sequence[float],
    per_day: float,
    shortest: timedelta = SHORTEST,
    longest: timedelta = LONGEST,
) -> Heartbeats:
    """Return intervals with which an average day costs `per_day` requests, or fewer if all are the shortest.

    `rates` are the source's events in each hour of the week, which all its streams are taken to follow. No stream
    waits longer than `longest`, unless even that costs more than `per_day`: then all wait for what it can pay.
    """
    costs = sum(load.cost for load in streams.values())
    longest = max(longest, shortest, _seconds(costs * _DAY_S / per_day if per_day > 0 else math.inf))
    hours = [1 / math.sqrt(rate) for rate in _floored(rates)]
    weights = _stream_weights(streams)
    budget = _Budget(streams, weights, hours)
    scale = budget.scale(per_day, shortest.total_seconds(), longest.total_seconds())
    return Heartbeats(
        shortest=shortest,
        longest=longest,
        streams={name: scale * weight for name, weight in weights.items()},
        hours=hours,
    )


def requests_a_day(beats: Heartbeats, streams: Mapping[str, StreamLoad]) -> float:
    """Return what the intervals cost on an average day."""
    budget = _Budget(streams, beats.streams, beats.hours)
    return budget.requests(1.0, beats.shortest.total_seconds(), beats.longest.total_seconds())


def _floored(rates: Sequence[float]) -> list[float]:
    """Return rates relative to their average, none too small; all are 1 where nothing ever came."""
    average = sum(rates) / len(rates)
    return [max(rate / average, LEAST_RATE) if average > 0 else 1.0 for rate in rates]


def _stream_weights(streams: Mapping[str, StreamLoad]) -> dict[str, float]:
    rates = _floored([load.rate for load in streams.values()]) if streams else []
    return {name: math.sqrt(load.cost / rate) for (name, load), rate in zip(streams.items(), rates, strict=True)}


def _seconds(value: float) -> timedelta:
    """Return so many seconds, at most a century."""
    return timedelta(seconds=min(value, 36_500 * _DAY_S))


class _Budget:
    """What intervals cost a day, in time that hardly grows with the streams: there may be thousands of them."""

    def __init__(self, streams: Mapping[str, StreamLoad], weights: Mapping[str, float], hours: Sequence[float]) -> None:
        pairs = sorted((weight, streams[name].cost) for name, weight in weights.items() if name in streams)
        self._weights = [weight for weight, _ in pairs]
        self._costs = [0.0, *accumulate(cost for _, cost in pairs)]
        self._per_weight = [0.0, *accumulate(cost / weight for weight, cost in pairs)]
        self._hours = hours

    def requests(self, scale: float, shortest_s: float, longest_s: float) -> float:
        """Return the requests of an average day at `scale` times weight times hour, within the limits."""
        total = 0.0
        for hour in self._hours:
            factor = scale * hour
            low = bisect_left(self._weights, shortest_s / factor)
            high = max(low, bisect_right(self._weights, longest_s / factor))
            total += self._costs[low] / shortest_s
            total += (self._per_weight[high] - self._per_weight[low]) / factor
            total += (self._costs[-1] - self._costs[high]) / longest_s
        return total / len(self._hours) * _DAY_S

    def scale(self, per_day: float, shortest_s: float, longest_s: float) -> float:
        """Return the scale with which a day costs `per_day`; the smallest useful one if the shortest costs less."""
        if not self._weights:
            return 1.0
        low = shortest_s / (self._weights[-1] * max(self._hours))
        high = longest_s / (self._weights[0] * min(self._hours))
        if self.requests(low, shortest_s, longest_s) <= per_day:
            return low
        for _ in range(40):
            middle = math.sqrt(low * high)
            if self.requests(middle, shortest_s, longest_s) > per_day:
                low = middle
            else:
                high = middle
        return high
