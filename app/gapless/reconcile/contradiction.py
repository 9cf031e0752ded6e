"""Read a list again that lacks events whose webhooks came, from other cuts. The decisions are pure functions.

A vendor's list may drop events where its pages meet, and only there. So each absent event is looked for in a window of
its own, and, where the provider has other requests for the same events, with those. If that shows it, the first listing
is proven wrong, and its whole window is read again in pieces of one page each.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

import httpx

from gapless.domain import EPOCH, align_down, align_up, from_us
from gapless.provider_api.client import Sender
from gapless.provider_api.pages import as_lister, first_page, walk_from
from gapless_reconcilers.kit.contract import Capabilities, ListsFromOtherCuts, Page, Reading, Window
from gapless_reconcilers.kit.errors import ProviderError

log = logging.getLogger(__name__)
MOST_WINDOWS = 20
"""Windows that one pass looks into for absent events, and at least one for each slice that lacks any."""


def windows_around(times_us: Iterable[int], capabilities: Capabilities, most: int = MOST_WINDOWS) -> list[Window]:
    """Return the narrowest windows that can show events of these times, in order and apart, at most `most`.

    A list with a filter by time is asked for each unit of its resolution by itself, wider by the grace if webhooks name
    no times. If those are more than `most`, the ones that are nearest to each other are joined: a page that came empty
    lacks a thousand events, and they are all read again at once. A list without a filter is walked once, down to the
    first of them.
    """
    unit = capabilities.resolution
    edge = timedelta(0) if capabilities.exact_times else align_up(EPOCH + capabilities.grace, unit) - EPOCH
    starts = sorted({align_down(from_us(us), unit) for us in times_us})
    windows: list[Window] = []
    for start in starts:
        window = Window(start=start - edge, end=start + unit + edge)
        if windows and (capabilities.reading is not Reading.WINDOW or window.start < windows[-1].end):
            windows[-1] = Window(start=windows[-1].start, end=window.end)
        else:
            windows.append(window)
    return _joined(windows, most)


def _joined(windows: Sequence[Window], most: int) -> list[Window]:
    """Return `windows`, which are in order and apart, with the narrowest gaps between them closed, at most `most`."""
    if len(windows) <= most:
        return list(windows)
    gaps = sorted(range(1, len(windows)), key=lambda at: windows[at - 1].end - windows[at].start)
    starts = [0, *sorted(gaps[: most - 1]), len(windows)]
    return [Window(start=windows[start].start, end=windows[end - 1].end) for start, end in pairwise(starts)]


def halves(window: Window, unit: timedelta) -> list[Window]:
    """Return the window in two parts that start at multiples of `unit`; nothing if it is no longer than that."""
    middle = align_down(window.start + (window.end - window.start) / 2, unit)
    if not window.start < middle < window.end:
        return []
    return [Window(start=window.start, end=middle), Window(start=middle, end=window.end)]


@dataclass(slots=True, kw_only=True)
class OtherCuts:
    """Looks for absent events in other cuts of a list. `compare` takes each page, `shown` tells what pages showed."""

    client: Sender
    capabilities: Capabilities
    stream: str
    window: Window
    """The window whose listing lacks them."""
    compare: Callable[[Page], Awaitable[None]]
    shown: Callable[[], AbstractSet[int]]
    must_stop: Callable[[], bool]

    async def look_for(self, absent: Mapping[int, int], windows: Iterable[Window]) -> set[int]:
        """Look for the events `absent` {seq: time of occurrence} in `windows`. Return the seqs that were looked for.

        A request that fails shows nothing, and no more are made this time.
        """
        tried: set[int] = set()
        try:
            for window in windows:
                if self.must_stop():
                    break
                inside = {seq for seq, us in absent.items() if from_us(us) in window}
                tried |= inside
                await self._look_into(window, inside)
            if tried & self.shown() and self.capabilities.reading is Reading.WINDOW:
                await self._read_in_pieces()
        except ProviderError as error:
            source = self.client.source.name
            log.warning("other_cut_failed", extra={"source": source, "stream": self.stream, "error": str(error)})
            return set(absent)
        return tried

    async def _look_into(self, window: Window, inside: AbstractSet[int]) -> None:
        for request in self._requests(window):
            if inside <= self.shown() or self.must_stop():
                return
            await self._walk(request, window)

    def _requests(self, window: Window) -> Iterator[httpx.Request]:
        """Yield requests for all events of `window`: the usual one, unless it was made, then the provider's others."""
        provider = self.client.source.provider
        if window != self.window:
            yield as_lister(provider).first_request(self.stream, window)
        if isinstance(provider, ListsFromOtherCuts):
            yield from provider.other_requests(self.stream, window)

    async def _walk(self, request: httpx.Request, window: Window) -> None:
        async with walk_from(self.client, request, self.stream, window) as pages:
            async for page in pages:
                await self.compare(page)
                if self.must_stop():
                    return

    async def _read_in_pieces(self) -> None:
        """Read the whole window again without a second page, as far as its unit allows."""
        waiting = halves(self.window, self.capabilities.resolution)
        while waiting and not self.must_stop():
            piece = waiting.pop()
            page = await first_page(self.client, self.stream, piece)
            await self.compare(page)
            if page.next is None:
                continue
            parts = halves(piece, self.capabilities.resolution)
            waiting += parts
            for request in () if parts else self._requests(piece):
                await self._walk(request, piece)
