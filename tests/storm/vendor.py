"""A Stripe that lies: pages that lack events, are cut short or have odd rows. It logs every lie and every page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from gapless_reconcilers.testing.fake import FakeProvider, utc_now
from gapless_reconcilers.testing.fake.event_store import FakeEvent, Listing, Query
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat
from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest
from storm.evidence import Lie

ODD_EVERY = 100
ODD_FIRST = 37
MOST_EVENTS = 1_000_000
ODD_FOR = timedelta(seconds=8)
"""How long the list shows a row that cannot be read, before it shows it as it should be."""
SURROGATE, HUGE_NUMBER, NESTED = "surrogate", "huge number", "deeply nested"
NO_TIME, NO_OBJECT, NO_ID = "no time", "no object", "no id"
ODDITIES = (NO_TIME, SURROGATE, NO_ID, NESTED, NO_OBJECT, HUGE_NUMBER)


def oddity(number: int) -> str | None:
    """Return what is odd about the event of that number; None for 99 of 100."""
    at, rest = divmod(number - ODD_FIRST, ODD_EVERY)
    return ODDITIES[at % len(ODDITIES)] if rest == 0 else None


class OddFormat(StripeFormat):
    """Stripe's format with one odd event in every hundred: in fields that nobody reads, or unreadable for a while."""

    clock: Callable[[], datetime]

    def __init__(self, clock: Callable[[], datetime]) -> None:
        StripeFormat.__init__(self)
        object.__setattr__(self, "clock", clock)

    def encode(self, event: FakeEvent, *, version: str | None = None, with_account: bool = False) -> bytes:
        """Return the event as JSON. `with_account` is set for webhooks, which are always readable."""
        plain = StripeFormat.encode(self, event, version=version, with_account=with_account)
        odd = oddity(event.number)
        if odd is None:
            return plain
        if odd in UNREAD:
            return plain.replace(b'"description":""', UNREAD[odd])
        if not with_account and self.clock() < event.visible_at + ODD_FOR:
            return UNREADABLE[odd](plain)
        return plain


def _without_time(plain: bytes) -> bytes:
    start = plain.index(b'"created":')
    return plain[:start] + b'"created":null' + plain[plain.index(b",", start) :]


def _without_object(plain: bytes) -> bytes:
    start, end = plain.index(b'"data":'), plain.index(b',"livemode"')
    return plain[:start] + b'"data":{"object":null}' + plain[end:]


def _without_id(plain: bytes) -> bytes:
    start = plain.index(b'"id":')
    return plain[:start] + plain[plain.index(b",", start) + 1 :]


DEPTH = 5000
UNREAD: Mapping[str, bytes] = {
    SURROGATE: b'"description":"x\\ud83d"',
    HUGE_NUMBER: b'"description":"","amount":1e999',
    NESTED: b'"description":"","nested":' + b"[" * DEPTH + b"]" * DEPTH,
}
"""Oddities in fields that nobody reads."""
UNREADABLE: Mapping[str, Callable[[bytes], bytes]] = {
    NO_TIME: _without_time,
    NO_OBJECT: _without_object,
    NO_ID: _without_id,
}
"""Oddities of what must be read."""


@dataclass(slots=True, kw_only=True)
class Lies:
    """How pages lie, all off by default. Rates are probabilities from 0 to 1 with the vendor's seed."""

    lacks: float = 0.0
    """Events that a page lacks."""
    empty: float = 0.0
    """Pages that are empty and the last, although there are events."""
    truncated: float = 0.0
    """Answers whose body ends in the middle, with the right framing."""
    rest_of_second: bool = False
    """After a cursor, the other events of its second are skipped."""


class LyingVendor(FakeProvider):
    """A fake account whose list lies while `lies` says so. `told` has the lies, `first_shown` the truth."""

    def __init__(self, *, has_oddities: bool, clock: Callable[[], datetime] = utc_now, **options: Any) -> None:
        vendor_format = OddFormat(clock) if has_oddities else StripeFormat()
        FakeProvider.__init__(self, vendor_format, clock=clock, **options)
        self.has_oddities = has_oddities
        self.lies = Lies()
        self.told: list[Lie] = []
        self.first_shown: dict[str, datetime] = {}
        self._untold: list[Lie] = []

    def read(self, query: Query) -> Listing:
        """Return a page, with the lies that hold now. Raises `UnknownCursorError`."""
        listing = FakeProvider.read(self, query)
        if self.lies.rest_of_second and query.after is not None:
            listing = self._without_rest_of_second(listing)
        if listing.events and self._happens(self.lies.empty):
            self._lie("an empty page", FakeProvider.read(self, replace(listing.query, limit=MOST_EVENTS)).events)
            listing = replace(listing, events=(), has_more=False)
        listing = self._with_holes(listing)
        self._listing = listing
        return listing

    def _without_rest_of_second(self, listing: Listing) -> Listing:
        """Skip what occurred in the second of the cursor, on this page and those after it."""
        cursor = self._store.by_key[listing.query.after or ""]
        while True:
            skipped = [event for event in listing.events if event.occurred_at == cursor.occurred_at]
            self._lie("the rest of a second", skipped)
            left = tuple(event for event in listing.events if event.occurred_at != cursor.occurred_at)
            if left or not listing.has_more or not skipped:
                return replace(listing, events=left)
            listing = FakeProvider.read(self, replace(listing.query, after=skipped[-1].key))

    def _with_holes(self, listing: Listing) -> Listing:
        """Leave events out, but never the last of a page that has a successor: its cursor must exist."""
        if not self.lies.lacks:
            return listing
        last = listing.events[-1:] if listing.has_more else ()
        lacking = [event for event in listing.events if event not in last and self._happens(self.lies.lacks)]
        self._lie("a page lacks events", lacking)
        return replace(listing, events=tuple(event for event in listing.events if event not in lacking))

    def _lie(self, kind: str, events: Sequence[FakeEvent]) -> None:
        if events:
            self._untold.append(Lie(at=self.clock(), kind=kind, keys=tuple(event.key for event in events)))

    def _answer(self, request: ApiRequest) -> ApiAnswer:
        self._untold.clear()
        answer = FakeProvider._answer(self, request)
        listing: Listing | None = self._listing
        if listing is None or answer.status != 200:
            return answer
        if self._happens(self.lies.truncated):
            self._listing = None
            return replace(answer, body=answer.body[: self._chance.randrange(1, len(answer.body))])
        self.told += self._untold
        for event in listing.events:
            if not self.is_unreadable(event) or self.clock() >= event.visible_at + ODD_FOR:
                self.first_shown.setdefault(event.key, self.clock())
        return answer

    def is_unreadable(self, event: FakeEvent) -> bool:
        """Return True if the list shows the event so that it cannot be read, for the first `ODD_FOR`."""
        return self.has_oddities and oddity(event.number) in UNREADABLE
