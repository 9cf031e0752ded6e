"""How long it takes from the end of a fault until everything is recorded, delivered and compared again. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from statistics import median

from storm.evidence import Evidence, Sample
from storm.faults import Fault, Kind

SECOND = timedelta(seconds=1)
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """A fault and the time from its end until all was well; None: that never came."""

    fault: Fault
    took: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The recoveries from one kind of fault. None: there is no such time."""

    kind: Kind
    count: int
    alone: int
    median_s: float | None
    """Of those that were alone."""
    longest_s: float | None
    """Of those that were alone."""
    storm_median_s: float | None
    storm_longest_s: float | None
    never: int


def recoveries(evidence: Evidence) -> list[Recovery]:
    """Return every fault with its time to recovery, in order of their end.

    Recovered: each event that the list showed at the fault's end was accepted by the consumer, and a sample after the
    end shows a healthy source whose watermark has come to that end. Samples are a second apart, and so are the times.
    """
    delivered_by = _Deliveries(evidence)
    healthy = _Healthy(evidence.samples)
    found = []
    for fault in sorted(evidence.faults, key=lambda each: each.ended):
        delivered, proven = delivered_by.all_visible_at(fault.ended), healthy.first_after(fault.ended)
        took = None if delivered is None or proven is None else max(fault.ended, delivered, proven) - fault.ended
        found.append(Recovery(fault=fault, took=took))
    return found


def figures(found: Sequence[Recovery]) -> list[Figures]:
    """Return the figures of each kind that occurred."""
    return [_figures(kind, mine) for kind in Kind if (mine := [each for each in found if each.fault.kind is kind])]


def _figures(kind: Kind, found: Sequence[Recovery]) -> Figures:
    alone = [each.took.total_seconds() for each in found if each.fault.alone and each.took is not None]
    others = [each.took.total_seconds() for each in found if not each.fault.alone and each.took is not None]
    return Figures(
        kind=kind,
        count=len(found),
        alone=sum(each.fault.alone for each in found),
        median_s=median(alone) if alone else None,
        longest_s=max(alone, default=None),
        storm_median_s=median(others) if others else None,
        storm_longest_s=max(others, default=None),
        never=sum(each.took is None for each in found),
    )


class _Deliveries:
    """Answers when all events that were visible at a time had been accepted."""

    def __init__(self, evidence: Evidence) -> None:
        ordered = sorted(evidence.events, key=lambda event: event.visible_at)
        self._visible = [event.visible_at for event in ordered]
        self._latest = list(accumulate((evidence.accepted_at.get(event.key, NEVER) for event in ordered), max))

    def all_visible_at(self, time: datetime) -> datetime | None:
        count = bisect_right(self._visible, time)
        if not count:
            return time
        latest = self._latest[count - 1]
        return None if latest == NEVER else latest


class _Healthy:
    """Answers which sample first shows a healthy source that was compared up to a time."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = [each for each in samples if each.is_healthy and each.watermark is not None]
        self._times = [each.at for each in self._samples]

    def first_after(self, time: datetime) -> datetime | None:
        wanted = time.replace(microsecond=0)  # watermarks are whole seconds
        for sample in self._samples[bisect_left(self._times, time) :]:
            if sample.watermark is not None and sample.watermark >= wanted:
                return sample.at
        return None
