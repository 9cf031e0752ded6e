"""What a vendor holds and how its list shows it: events in order of time, read by page.

No vendor's format is known here. A page is found by bisection and costs its own length, whatever the
shelf holds, so that a million events can be listed in a test.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from gapless_reconcilers.kit.contract import Order

_FIRST_NUMBER = -1
"""Below every event number: bounds are compared as (time, number)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListSemantics:
    """How a vendor's list behaves."""

    order: Order
    resolution: timedelta
    """Unit in which times of occurrence are stamped and filtered."""
    history: timedelta | None
    """Older events are not shown, nor can the list be paged from them; None: all are."""
    default_limit: int
    most_per_page: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeEvent:
    """An event that the vendor has. `visible_at`: when its list begins to show it."""

    number: int
    key: str
    type: str
    occurred_at: datetime
    visible_at: datetime
    stream: str
    object_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One page asked for: all that occurred in `[start, end)`, after or before an event, of some types."""

    stream: str
    limit: int
    start: datetime | None = None
    end: datetime | None = None
    after: str | None = None
    """Key of the event that the page follows, in the list's order."""
    before: str | None = None
    """Key of the event that the page comes just ahead of, in the list's order."""
    types: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One page as it was answered."""

    query: Query
    events: tuple[FakeEvent, ...]
    has_more: bool


class UnknownCursorError(LookupError):
    """The list is asked to go on from an event that it does not have, or no longer."""


@dataclass(slots=True)
class EventStore:
    """The events of all streams. `add` keeps each stream sorted; `read` answers a query at a time."""

    semantics: ListSemantics
    by_key: dict[str, FakeEvent] = field(default_factory=dict)
    _streams: dict[str, list[FakeEvent]] = field(default_factory=dict)

    def add(self, event: FakeEvent) -> None:
        """Put `event` in its place: an append, unless it occurred before one that is already there."""
        events = self._streams.setdefault(event.stream, [])
        self.by_key[event.key] = event
        if not events or _place(events[-1]) < _place(event):
            events.append(event)
        else:
            insort(events, event, key=_place)

    def streams(self) -> list[str]:
        """The streams that have or had events, in order of appearance."""
        return list(self._streams)

    def floor(self, time: datetime) -> datetime:
        """`time` cut to the resolution."""
        unit = self.semantics.resolution
        origin = datetime(1970, 1, 1, tzinfo=UTC)
        return origin + (time - origin) // unit * unit

    def shows(self, event: FakeEvent, now: datetime) -> bool:
        """Whether the list has `event` at `now`: neither still hidden nor out of the history."""
        oldest = self._oldest(now)
        return event.visible_at <= now and (oldest is None or event.occurred_at >= oldest)

    def read(self, query: Query, now: datetime) -> Listing:
        """The page that the list shows at `now`. Raises `UnknownCursorError`."""
        events = self._streams.get(query.stream, [])
        low, high = self._bounds(events, query, now)
        newest_first = self.semantics.order is Order.NEWEST_FIRST
        if query.after is not None:
            at = self._position(events, query.after, query, now)
            low, high = (low, min(high, at)) if newest_first else (max(low, at + 1), high)
        if query.before is not None:
            at = self._position(events, query.before, query, now)
            low, high = (max(low, at + 1), high) if newest_first else (low, min(high, at))
        downward = newest_first is (query.before is None)
        span = range(high - 1, low - 1, -1) if downward else range(low, high)
        found = self._take(events, span, query, now)
        shown = found[: query.limit]
        in_order = shown if query.before is None else shown[::-1]
        return Listing(query=query, events=tuple(in_order), has_more=len(found) > query.limit)

    def _bounds(self, events: list[FakeEvent], query: Query, now: datetime) -> tuple[int, int]:
        """The index range that the time filter and the history leave."""
        starts = [time for time in (query.start, self._oldest(now)) if time is not None]
        low = bisect_left(events, (max(starts), _FIRST_NUMBER), key=_place) if starts else 0
        high = bisect_left(events, (query.end, _FIRST_NUMBER), key=_place) if query.end else len(events)
        return low, high

    def _oldest(self, now: datetime) -> datetime | None:
        return None if self.semantics.history is None else self.floor(now - self.semantics.history)

    def _position(self, events: list[FakeEvent], key: str, query: Query, now: datetime) -> int:
        event, oldest = self.by_key.get(key), self._oldest(now)
        if event is None or event.stream != query.stream or (oldest is not None and event.occurred_at < oldest):
            raise UnknownCursorError(key)
        return bisect_left(events, _place(event), key=_place)

    def _take(self, events: list[FakeEvent], span: range, query: Query, now: datetime) -> list[FakeEvent]:
        """The first `limit + 1` events of `span` that are shown; one more than wanted tells that there is more."""
        found: list[FakeEvent] = []
        for event in self._shown(events, span, query, now):
            found.append(event)
            if len(found) > query.limit:
                break
        return found

    @staticmethod
    def _shown(events: list[FakeEvent], span: range, query: Query, now: datetime) -> Iterator[FakeEvent]:
        for index in span:
            event = events[index]
            if event.visible_at <= now and (query.types is None or query.types(event.type)):
                yield event


def _place(event: FakeEvent) -> tuple[datetime, int]:
    return event.occurred_at, event.number
