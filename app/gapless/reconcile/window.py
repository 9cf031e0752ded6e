"""Which time a pass reads. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from gapless.domain import align_down, align_up
from gapless_reconcilers.kit.contract import Capabilities, Window

SWEEP_DEPTH = timedelta(hours=72)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to read (None: nothing yet), and what can no longer be read (None: nothing)."""

    window: Window | None
    unrecoverable: Window | None = None


def plan_pass(
    *, watermark: datetime, complete_from: datetime, now: datetime, lookback: timedelta, capabilities: Capabilities
) -> Plan:
    """The window of a scheduled pass: from the watermark less the lookback, to now less the grace.

    `now` is the earlier of our clock and the provider's. What lies before the provider's history and
    behind the watermark is unrecoverable.
    """
    unit = capabilities.resolution
    end = align_down(now - capabilities.grace, unit)
    oldest = None if capabilities.history is None else align_up(now - capabilities.history, unit)
    lost = None
    if oldest is not None and watermark < oldest:
        lost, watermark = Window(start=watermark, end=oldest), oldest
    start = align_down(max(watermark - lookback, complete_from), unit)
    if oldest is not None:
        start = max(start, oldest)
    return Plan(window=Window(start=start, end=end) if start < end else None, unrecoverable=lost)


def plan_sweeps(
    *,
    watermark: datetime,
    complete_from: datetime,
    now: datetime,
    lookback: timedelta,
    every: timedelta,
    capabilities: Capabilities,
) -> list[Window]:
    """The windows of a sweep: a last look at what is about to leave the history, and a deep one behind the lookback."""
    unit, history = capabilities.resolution, capabilities.history
    depth = SWEEP_DEPTH if history is None else min(SWEEP_DEPTH, history / 2)
    end = align_down(watermark - lookback, unit)
    looks = [(watermark - depth, end)]
    if history is not None:
        oldest = align_up(now - history, unit)
        looks.insert(0, (oldest, min(oldest + 2 * every, watermark - depth)))
    bounds = [(align_down(max(start, complete_from), unit), align_down(stop, unit)) for start, stop in looks]
    return [Window(start=start, end=stop) for start, stop in bounds if start < stop]
