"""`/api/v1/events`: the search, and what became of one event."""

from datetime import datetime
from enum import StrEnum
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, QueryParameter
from msgspec import Struct

from gapless import masking
from gapless.console.api import cursors
from gapless.console.api.shared import (
    PAGE,
    After,
    AnyRequest,
    Limit,
    OfSource,
    Since,
    Until,
    chosen_sources,
    reading,
    refuse,
    rest_of_path,
    time,
    time_us,
)
from gapless.console.routing import principal_of
from gapless.destinations.contract import event_id
from gapless.domain import EventMode, from_us
from gapless.ledger import Connection, event_history, event_search, sources
from gapless.ledger.attempts import AttemptDetails
from gapless.ledger.event_history import EventHistory
from gapless.ledger.event_search import DeliveryMark, EventSearch
from gapless.ledger.events import Event
from gapless.ledger.newest import NewestPage
from gapless.operations.attempts import as_values
from gapless.operations.context import OperationContext

NOUN = "events"
TEXT = partial(QueryParameter, max_length=500)


class Way(StrEnum):
    """The way by which an event came: as it was first recorded, or both."""

    WEBHOOK = "webhook"
    LIST = "list"
    REDELIVERY = "redelivery"
    IMPORT = "import"
    BOTH = "both"
    """A list showed it first, and its webhook came later."""


class OwedState(StrEnum):
    """The state that one of its deliveries has."""

    PENDING = "pending"
    WAITING = "waiting"
    """Earlier ones of its object, or the proof of its source, come first."""
    DELIVERED = "delivered"
    DEAD = "dead"
    HELD = "held"
    PARKED = "parked"
    NONE = "none"
    """It is owed to nobody."""


class OwedItem(Struct, frozen=True, kw_only=True):
    """The state of one delivery."""

    destination: str
    state: str
    reason: str | None


class EventItem(Struct, frozen=True, kw_only=True):
    """One event. null means unknown, or that it does not apply."""

    source: str
    stream: str
    """The part of the source that is listed by itself; "": its own."""
    key: str
    type: str
    object: str | None
    mode: EventMode | None
    """null: the vendor has no modes."""
    occurred: datetime
    recorded: datetime
    via: Way
    """The way by which it was first recorded."""
    webhook: datetime | None
    """When its first webhook came; null: none has come."""
    webhooks: int
    expected: bool
    missed: str | None
    """Why its webhook was missed; null: it was not missed."""
    repeated: bool
    """An event of another key came with the same signed message before."""
    deliveries: list[OwedItem] | None
    """null: the token is limited to sources and sees no destinations."""


class EventsPage(Struct, frozen=True, kw_only=True):
    """A page of events, the newest first."""

    items: list[EventItem]
    next: str | None
    """The cursor of the next page; null: there is none."""
    complete: bool
    """false: not everything was looked at. There may be more behind `next`, even if the page has few entries."""


class AnswerItem(Struct, frozen=True, kw_only=True):
    """The beginning of what a destination answered."""

    headers: dict[str, str]
    body: str
    is_cut: bool
    """There was more of it than is kept."""


class AttemptItem(Struct, frozen=True, kw_only=True):
    """One attempt of a delivery."""

    at: datetime
    duration_s: float
    outcome: str
    detail: str | None
    status: int | None
    """The status of the answer; null: there was none, or it is not known."""
    answer: AnswerItem | None
    """What was kept of the answer, with masked values hidden."""


class DeliveryItem(Struct, frozen=True, kw_only=True):
    """One delivery, with the attempts that are still kept."""

    destination: str
    state: str
    reason: str | None
    attempted: int
    created: datetime
    next_attempt: datetime | None
    done: datetime | None
    answered: datetime | None
    """Of one that needs a receipt: when it was first answered 2xx."""
    receipt: datetime | None
    """When the handler said that it has processed the event."""
    attempts: list[AttemptItem]


class PayloadItem(Struct, frozen=True, kw_only=True):
    """The payload as it was stored, with masked values hidden."""

    size: int
    stored: datetime
    json: Any
    """The payload as JSON; null if it is none, or if it is `null`."""
    text: str | None
    """What is no JSON, as text; null if it is JSON."""
    masked: list[str]
    """The JSON pointers of the values that the source hides."""
    headers: dict[str, str] | None
    """The headers that were kept; null: a list brought it."""


class EventDetail(Struct, frozen=True, kw_only=True):
    """One event, and what became of it."""

    event: EventItem
    consumer_id: str
    """The id that consumers see, which is also the idempotency key."""
    payload: PayloadItem | None
    """null: it was imported, pruned or erased, or it is sealed with a key that is not there."""
    closed: str | None
    """Why the payload cannot be opened; null: it can, or there is none."""
    erased: datetime | None
    """When a person had its payload erased."""
    deliveries: list[DeliveryItem] | None
    """null: the token is limited to sources and sees no destinations."""
    imported: datetime | None
    listings_without_it: int
    """Complete listings of its time that did not show it."""
    absence: str | None
    awaited: bool
    """A list showed it first, and its webhook may still come in time: it is not judged yet."""


def event_routes(context: OperationContext) -> list[HTTPRouteHandler]:
    """Return the routes."""

    @reading("/events", tag="events")
    async def list_events(
        request: AnyRequest,
        *,
        named: Annotated[str | None, TEXT(name="id", description="The key of the event, or of its object.")] = None,
        prefix: Annotated[str | None, TEXT(description="The beginning of the key.")] = None,
        types: Annotated[str | None, TEXT(name="type", description="`invoice.*`, or several with commas.")] = None,
        of: Annotated[str | None, TEXT(name="object", description="The key of the object.")] = None,
        source: OfSource = None,
        via: FromQuery[Way | None] = None,
        owed: Annotated[OwedState | None, QueryParameter(name="state", description="Of one of its deliveries.")] = None,
        mode: FromQuery[EventMode | None] = None,
        since: Since = None,
        until: Until = None,
        after: After = None,
        limit: Limit = PAGE,
    ) -> EventsPage:
        """Search events, the newest first by the time at which they occurred."""
        wanted = EventSearch(
            sources=chosen_sources(request, source),
            id=_text("id", named),
            prefix=_text("prefix", prefix),
            types=read_types(types),
            object_key=_text("object", of),
            via=None if via is None else via.value,
            state=None if owed is None else owed.value,
            livemode=None if mode is None else mode is EventMode.LIVE,
            start_us=time_us(context, "since", since),
            end_us=time_us(context, "until", until),
        )
        return await find_events(request, context, wanted, after, limit)

    @reading("/events/{source:str}/{key:path}", tag="events")
    async def show_event(request: AnyRequest, source: FromPath[str], key: FromPath[str]) -> EventDetail:
        """Show one event: its payload, the headers that were kept, its deliveries with every attempt."""
        key = rest_of_path(request, f"/events/{source}/") if source.isascii() else key.removeprefix("/")
        return await read_event(request, context, source, key)

    return [list_events, show_event]


async def find_events(
    request: AnyRequest, context: OperationContext, wanted: EventSearch, after: str | None, limit: int
) -> EventsPage:
    """Return a page of the events that fit. Raises `HTTPException` and `StoreError`."""
    place = cursors.decode(NOUN, after, length=2)
    found, owed = await context.read(_search, wanted=wanted, after=place, limit=limit)
    shows = not principal_of(request).is_limited
    return EventsPage(
        items=[item(each, owed.get(each.seq, []) if shows else None) for each in found.rows],
        next=cursors.encode(NOUN, found.after),
        complete=found.is_full,
    )


async def read_event(request: AnyRequest, context: OperationContext, source: str, key: str) -> EventDetail:
    """Return one event. Raises `HTTPException` (404) and `StoreError`."""
    found = None
    if principal_of(request).may_touch(source) and "\0" not in source + key:
        found = await context.read(_history, source=source, key=key)
    if found is None:
        refuse(f"source {source!r} has no event {key!r} in the ledger", HTTPStatus.NOT_FOUND)
    event, history, seed = found
    mask = context.sources[source].mask if source in context.sources else ()
    shows = not principal_of(request).is_limited
    owed = [
        DeliveryMark(destination=each.destination, state=each.state, reason=each.reason) for each in history.deliveries
    ]
    return EventDetail(
        event=item(event, owed if shows else None),
        consumer_id=event_id(seed, key),
        payload=None if history.stored is None else _payload(history, mask),
        closed=history.closed,
        erased=time(event.erased_us),
        deliveries=_deliveries(history, mask) if shows else None,
        imported=time(history.imported_us),
        listings_without_it=history.absences,
        absence=history.absence,
        awaited=history.awaited,
    )


def item(event: Event, owed: list[DeliveryMark] | None) -> EventItem:
    """Return an event as the API shows it."""
    return EventItem(
        source=event.source,
        stream=event.stream,
        key=event.key,
        type=event.type,
        object=event.object_key,
        mode=None if event.livemode is None else EventMode.of(livemode=event.livemode),
        occurred=from_us(event.occurred_us),
        recorded=from_us(event.first_seen_us),
        via=Way(event.via),
        webhook=time(event.webhook_us),
        webhooks=event.webhook_count,
        expected=event.expected,
        missed=event.missed_cause,
        repeated=event.repeated,
        deliveries=None
        if owed is None
        else [OwedItem(destination=each.destination, state=each.state.value, reason=each.reason) for each in owed],
    )


def _search(
    connection: Connection, wanted: EventSearch, after: tuple[int, ...] | None, limit: int
) -> tuple[NewestPage[Event], dict[int, list[DeliveryMark]]]:
    found = event_search.search(connection, wanted, after=after, limit=limit)
    return found, event_search.deliveries_of(connection, [each.seq for each in found.rows])


def _history(connection: Connection, source: str, key: str) -> tuple[Event, EventHistory, str] | None:
    event = event_search.event_named(connection, source, key)
    row = sources.source_named(connection, source)
    if event is None or row is None:
        return None
    return event, event_history.read(connection, event), row["identity_seed"] or str(row["id"])


def _deliveries(history: EventHistory, mask: tuple[str, ...]) -> list[DeliveryItem]:
    payload = None if history.stored is None else history.stored.body
    tried = [(each.destination, _attempt(each, payload, mask)) for each in history.attempts]
    return [
        DeliveryItem(
            destination=each.destination,
            state=each.state.value,
            reason=each.reason,
            attempted=each.attempts,
            created=from_us(each.created_us),
            next_attempt=from_us(each.next_us) if each.state.value == OwedState.PENDING else None,
            done=time(each.done_us),
            answered=time(each.answered_us),
            receipt=time(each.applied_us or each.receipt_us),
            attempts=[attempt for destination, attempt in tried if destination == each.destination],
        )
        for each in history.deliveries
    ]


def _attempt(row: AttemptDetails, payload: bytes | None, mask: tuple[str, ...]) -> AttemptItem:
    shown = as_values(row, payload, mask)
    return msgspec.convert({name: shown[name] for name in AttemptItem.__struct_fields__}, AttemptItem)


def _payload(history: EventHistory, mask: tuple[str, ...]) -> PayloadItem | None:
    stored = history.stored
    if stored is None:
        return None
    value, text = masking.readable(masking.shown(stored.body, mask))
    headers = None if stored.headers is None else msgspec.json.decode(stored.headers, type=dict[str, str])
    return PayloadItem(
        size=len(stored.body),
        stored=from_us(stored.stored_us),
        json=value,
        text=text,
        masked=list(mask),
        headers=headers,
    )


def read_types(text: str | None) -> tuple[str, ...] | None:
    """Return the types of a list with commas; None: any."""
    return None if text is None else tuple(filter(None, _checked("type", text).split(","))) or None


def _text(name: str, text: str | None) -> str | None:
    return None if text is None else _checked(name, text)


def _checked(name: str, text: str) -> str:
    """Return the text. Raises `HTTPException` if no ledger can hold it."""
    if "\0" in text or any("\ud800" <= each <= "\udfff" for each in text):
        refuse(f"{name} has a character that no event has")
    return text
