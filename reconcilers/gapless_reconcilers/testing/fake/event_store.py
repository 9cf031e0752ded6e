"""The events that a fake vendor has, in order of time, and reading them by page as its list shows them.

No vendor's format is known here. A page is found by bisection and takes time by its own length, whatever the number of
events, so that a million events can be listed in a test.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from gapless_reconcilers.kit.contract import Order

_FIRST_NUMBER = -1
"""Smaller than every event number: bounds are compared as (time, number)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListSemantics:
    """The behaviour of a vendor's list."""

    order: Order
    resolution: timedelta
    """Unit in which times of occurrence are stamped and filtered."""
    history: timedelta | None
    """Older events are not listed, and paging cannot continue from them; None: no limit."""
    default_limit: int
    most_per_page: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeEvent:
    """An event that the vendor has. `visible_at`: the time from which its list shows it."""

    number: int
    key: str
    type: str
    occurred_at: datetime
    visible_at: datetime
    stream: str
    object_id: str
    livemode: bool | None = None
    """The vendor's mode, if it is not the account's own; None: the account's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A request for one page: events that occurred in `[start, end)`, after or before an event, of some types."""

    stream: str
    limit: int
    start: datetime | None = None
    end: datetime | None = None
    after: str | None = None
    """Key of the event that the page follows, in the list's order."""
    before: str | None = None
    """Key of the event that the page precedes, in the list's order."""
    types: Callable[[str], bool] | None = None
    hidden: frozenset[str] = frozenset()
    """Keys of events that are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One page of the answer."""

    query: Query
    events: tuple[FakeEvent, ...]
    has_more: bool


class UnknownCursorError(LookupError):
    """The request wants to continue from an event that the list does not have, or no longer."""


@dataclass(slots=True)
class EventStore:
    """The events of all streams. `add` keeps each stream sorted; `read` answers a query as of a time."""

    semantics: ListSemantics
    by_key: dict[str, FakeEvent] = field(default_factory=dict)
    _streams: dict[str, list[FakeEvent]] = field(default_factory=dict)

    def add(self, event: FakeEvent) -> None:
        """Insert `event` in order of time: an append, unless a later event is already there."""
        events = self._streams.setdefault(event.stream, [])
        self.by_key[event.key] = event
        if not events or _place(events[-1]) < _place(event):
            events.append(event)
        else:
            insort(events, event, key=_place)

    def streams(self) -> list[str]:
        """Return the streams that have or had events, in order of appearance."""
        return list(self._streams)

    def floor(self, time: datetime) -> datetime:
        """Return `time` rounded down to the resolution."""
        unit = self.semantics.resolution
        origin = datetime(1970, 1, 1, tzinfo=UTC)
        return origin + (time - origin) // unit * unit

    def shows(self, event: FakeEvent, now: datetime) -> bool:
        """Return True if the list shows `event` at `now`: no longer hidden, and within the history."""
        oldest = self._oldest(now)
        return event.visible_at <= now and (oldest is None or event.occurred_at >= oldest)

    def read(self, query: Query, now: datetime) -> Listing:
        """Return the page that the list shows at `now`. Raises `UnknownCursorError`."""
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

    def is_within_a_time(self, query: Query, now: datetime) -> bool:
        """Return True if the page after the query's cursor begins with an event of the cursor's own time."""
        cursor = None if query.after is None else self.by_key.get(query.after)
        if cursor is None:
            return False
        following = self.read(query, now).events
        return bool(following) and following[0].occurred_at == cursor.occurred_at

    def _bounds(self, events: list[FakeEvent], query: Query, now: datetime) -> tuple[int, int]:
        """Return the index range within the time filter and the history."""
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
        """Return the first `limit + 1` visible events of `span`; the one beyond the limit shows that there is more."""
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
            is_wanted = event.key not in query.hidden and (query.types is None or query.types(event.type))
            if event.visible_at <= now and is_wanted:
                yield event


def _place(event: FakeEvent) -> tuple[datetime, int]:
    return event.occurred_at, event.number
