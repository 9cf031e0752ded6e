"""Learn how late webhooks and lists are, and derive from it how old an event must be to be recorded, and to be missed.

Pure. *Settle* is the age from which a listed event is recorded; *grace* is the age from which it counts as missed.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

SHORTEST_SETTLE, LONGEST_SETTLE = timedelta(seconds=5), timedelta(seconds=20)
LEAST_SAMPLES = 1000
"""Observations from which a p99.9 is more than the largest value seen."""
LEAST_LAGS = 100
"""Webhooks from which on the longest of their lags is worth more than the longest settle."""
LEARNED_FROM = timedelta(days=7)
"""The time whose observations count."""
STEP = 1.1
"""Each bucket of `AgeCounts` ends at so many times the end of the one before: a percentile is at most that wrong."""
FIRST_END_S = 0.05


def settle_time(webhook_lag_p999: timedelta | None) -> timedelta:
    """Return the age from which a listed event is recorded: most webhooks have come by then. None: lags are unknown."""
    if webhook_lag_p999 is None:
        return LONGEST_SETTLE
    return min(max(1.25 * webhook_lag_p999, SHORTEST_SETTLE), LONGEST_SETTLE)


def learned_grace(
    *,
    declared: timedelta,
    settle: timedelta,
    unit: timedelta,
    shown_p999: timedelta | None = None,
    webhook_lag_p999: timedelta | None = None,
    samples: int = 0,
) -> timedelta:
    """Return the age up to which a listed event without a webhook is not missed, and up to which the watermark goes.

    `shown_p999`: the age by which a listing showed what webhooks had brought, 0 if the first one did. It replaces the
    `declared` value if it is shorter and there are enough `samples`: events that were younger than that when they were
    listed first, because the others say nothing. The grace is always longer than `settle`, by a `unit` of the list.
    """
    least = settle + unit
    if samples < LEAST_SAMPLES or shown_p999 is None or webhook_lag_p999 is None:
        return max(declared, least)
    return max(min(declared, 1.5 * shown_p999 + timedelta(seconds=5)), 1.5 * webhook_lag_p999, least)


@dataclass(slots=True)
class ListWatch:
    """Observes at which age the listings of one stream first show the events that came by webhook.

    Only events count that no earlier listing of this process could have shown, or that one lacked.
    """

    read_at_us: int | None = None
    """The time of the listing before, by the provider's clock; None: there was none."""
    lacked: dict[str, int] = field(default_factory=dict)
    """{key: time of occurrence} of the events that the listings so far lacked."""

    def observe(self, at_us: int, known: Mapping[str, int], shown: Collection[str]) -> list[float]:
        """Return the ages, in seconds, of events that the listing requested at `at_us` is the first to show.

        `known`: {key: time of occurrence} of the young events whose webhook came before. `shown`: the listed keys.
        """
        ages: list[float] = []
        for key, occurred_us in known.items():
            is_new = self.read_at_us is not None and occurred_us >= self.read_at_us
            if key not in shown:
                if is_new:
                    self.lacked[key] = occurred_us
            elif self.lacked.pop(key, None) is not None or is_new:
                ages.append((at_us - occurred_us) / 1_000_000)
        self.lacked = {key: occurred_us for key, occurred_us in self.lacked.items() if key in known}
        self.read_at_us = at_us
        return ages


@dataclass(slots=True)
class AgeCounts:
    """Observed ages, counted in buckets of growing width, so that a week of them is a few numbers to store."""

    counts: dict[int, int] = field(default_factory=dict)
    """Observations by bucket."""

    def add(self, age_s: float, times: int = 1) -> None:
        """Count an age in seconds; less than the first bucket's end, even below 0, counts there."""
        at = 0 if age_s <= FIRST_END_S else math.ceil(math.log(age_s / FIRST_END_S) / math.log(STEP))
        self.counts[at] = self.counts.get(at, 0) + times

    def merge(self, counts: Mapping[int, int]) -> None:
        """Count what was counted elsewhere."""
        for at, count in counts.items():
            self.counts[at] = self.counts.get(at, 0) + count

    @property
    def total(self) -> int:
        """Return the number of observations."""
        return sum(self.counts.values())

    def percentile(self, share: float) -> timedelta | None:
        """Return the age that this share of the observations does not exceed, rounded up to its bucket; None: none."""
        wanted = math.ceil(self.total * share)
        for at in sorted(self.counts):
            wanted -= self.counts[at]
            if wanted <= 0:
                return timedelta(seconds=FIRST_END_S * STEP**at)
        return None
