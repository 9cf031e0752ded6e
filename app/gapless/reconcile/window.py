"""Decide which time a pass, a sweep or a horizon pass reads. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from gapless.domain import align_down, align_up
from gapless_reconcilers.kit.contract import Capabilities, Window

SWEEP_DEPTH = timedelta(hours=72)
"""The farthest that a sweep looks behind the watermark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The window to read (None: nothing yet), and the window that can no longer be read (None: there is none)."""

    window: Window | None
    unrecoverable: Window | None = None


def plan_pass(
    *,
    watermark: datetime,
    complete_from: datetime,
    now: datetime,
    provider_now: datetime,
    lookback: timedelta,
    capabilities: Capabilities,
) -> Plan:
    """Return the window of a scheduled pass: from the watermark less the lookback to the provider's now.

    It is in whole units. `now` is the earlier of our time and the provider's. If our clock is behind, or if one that
    was ahead has left the watermark in the future, what happens now is read all the same, and the watermark does not
    move over it: it stays behind now by the grace. The time between the watermark and the start of the provider's
    history is unrecoverable.
    """
    unit = capabilities.resolution
    end = align_up(provider_now, unit)
    oldest = None if capabilities.history is None else align_up(now - capabilities.history, unit)
    lost = None
    if oldest is not None and watermark < oldest:
        lost, watermark = Window(start=watermark, end=oldest), oldest
    start = align_down(max(min(watermark, end) - lookback, complete_from), unit)
    if oldest is not None:
        start = max(start, oldest)
    return Plan(window=Window(start=start, end=end) if start < end else None, unrecoverable=lost)


def recorded_up_to(provider_now: datetime, settle: timedelta) -> datetime:
    """Return the time up to which listed events are recorded: the webhooks of younger ones may be on their way."""
    return provider_now - settle


def claimed_up_to(now: datetime, grace: timedelta, unit: timedelta) -> datetime:
    """Return the time up to which the watermark goes, and events are judged: the list may still grow after it.

    It is in whole units of the list's times. `now` is the earlier of our time and the provider's at the beginning of
    the pass.
    """
    return align_down(now - grace, unit)


def sweep_depth(history: timedelta | None) -> timedelta:
    """Return how far behind the watermark a sweep looks."""
    return SWEEP_DEPTH if history is None else min(SWEEP_DEPTH, history / 2)


def plan_sweep(
    *, watermark: datetime, complete_from: datetime, lookback: timedelta, capabilities: Capabilities
) -> Window | None:
    """Return the window of a sweep, which ends where the lookback begins. None: there is nothing to read yet."""
    unit = capabilities.resolution
    start = align_down(max(watermark - sweep_depth(capabilities.history), complete_from), unit)
    end = align_down(watermark - lookback, unit)
    return Window(start=start, end=end) if start < end else None


def plan_horizon(
    *,
    watermark: datetime,
    complete_from: datetime,
    now: datetime,
    every: timedelta,
    looked_to: datetime | None,
    capabilities: Capabilities,
) -> Window | None:
    """Return the window of a horizon pass: the last look at what is about to leave the history. None: it is not due.

    The window ends `2 * every` ahead of the edge of the history. The next one is due when half of that time has gone
    by, so a horizon pass that fails can be made again. It begins where the last one ended, `looked_to`.
    """
    if capabilities.history is None:
        return None
    unit = capabilities.resolution
    oldest = align_up(now - capabilities.history, unit)
    end = align_down(min(oldest + 2 * every, watermark - sweep_depth(capabilities.history)), unit)
    start = max(oldest, align_down(complete_from, unit))
    if looked_to is not None:
        if looked_to > oldest + (end - oldest) / 2:
            return None
        start = max(start, looked_to)
    return Window(start=start, end=end) if start < end else None
