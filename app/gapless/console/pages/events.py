"""The search of events, and the page of one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gapless.console.api.events import (
    EventDetail,
    EventItem,
    EventsPage,
    OwedState,
    Way,
    find_events,
    item,
    read_event,
    read_types,
)
from gapless.console.api.shared import PAGE, AnyRequest, chosen_sources, rest_of_path, time_us
from gapless.console.auth import Area
from gapless.console.pages.acting import redirect
from gapless.console.pages.asking import Asking
from gapless.console.pages.preview import command, option
from gapless.console.pages.rendering import TREE_MOST, Site, event_path, page, query
from gapless.console.routing import guarded
from gapless.domain import EventMode
from gapless.ledger import event_search
from gapless.ledger.event_search import EventSearch
from gapless.operations.context import OperationContext

NAMES: Final = ("id", "prefix", "source", "type", "object", "via", "state", "mode", "since", "until")
SAME_SHOWN: Final = 10
STATES: Final = {
    "delivered": ("good", "delivered"),
    "pending": ("hand", "waiting"),
    "waiting": ("waiting", "waits for its turn"),
    "held": ("held", "held"),
    "parked": ("paused", "parked"),
    "dead": ("trouble", "dead letter"),
}
WORST: Final = ("dead", "held", "pending", "waiting", "parked", "delivered")
OWED_TO_NOBODY: Final = ("idle", "owed to nobody")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happened to an event."""

    at: datetime
    icon: str
    css: str
    text: str
    more: str = ""


def event_pages(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes."""

    @get("/events", guards=[guarded(Area.READ)], include_in_schema=False)
    async def events(request: AnyRequest) -> Response[Any]:
        """Find events."""
        asking = Asking(request)
        found = await find_events(
            request, site.context, wanted(request, site.context, asking), asking.text("after"), PAGE
        )
        return await page(
            site,
            request,
            "events.html",
            active="events",
            asking=asking,
            found=found,
            asked=asking.in_force(*NAMES),
            state_of=state_of,
            ways=[each.value for each in Way],
            states=[each.value for each in OwedState],
            modes=[each.value for each in EventMode],
            command=_command(asking),
        )

    @get("/events/{source:str}/{key:path}", guards=[guarded(Area.READ)], include_in_schema=False)
    async def event(request: AnyRequest, source: FromPath[str], key: FromPath[str]) -> Response[Any]:
        """Show one event: what happened to it, every step and answer."""
        key = rest_of_path(request, f"/events/{source}/") if source.isascii() else key.removeprefix("/")
        shown = await read_event(request, site.context, source, key)
        same = []
        if shown.event.object is not None:
            rows = await site.context.read(event_search.same_object, source, shown.event.object, SAME_SHOWN)
            same = [item(each, None) for each in reversed(rows)]
        return await page(
            site,
            request,
            "event.html",
            active="events",
            shown=shown,
            same=same,
            headline=headline(shown),
            steps=steps(shown),
            state_of=state_of,
            as_tree=shown.payload is not None and shown.payload.text is None and shown.payload.size <= TREE_MOST,
            states=STATES,
        )

    @get("/live", guards=[guarded(Area.READ)], include_in_schema=False)
    async def live(request: AnyRequest) -> Response[Any]:
        """Show the newest events; a script goes on with the live stream."""
        asking = Asking(request)
        search = EventSearch(
            sources=chosen_sources(request, asking.text("source")),
            via=asking.choice("via", [each.value for each in Way]),
            types=read_types(asking.text("types")),
        )
        found = await find_events(request, site.context, search, None, PAGE)
        return await page(site, request, "live.html", active="live", asking=asking, found=found)

    @get("/find", guards=[guarded(Area.READ)], include_in_schema=False)
    async def find(request: AnyRequest) -> Response[Any]:
        """Go to the event of that key; if several fit, or none, to the search."""
        asking = Asking(request)
        text = asking.text("q") or ""
        search = EventSearch(sources=chosen_sources(request, None), id=text)
        found = await find_events(request, site.context, search, None, 2) if _may_exist(text) else None
        if found is not None and len(found.items) == 1:
            return redirect(event_path(found.items[0].source, found.items[0].key))
        return redirect(_address_of(text, found))

    return [events, event, live, find]


def wanted(request: AnyRequest, context: OperationContext, asking: Asking) -> EventSearch:
    """Return what the address asks for. Raises `HTTPException` (400)."""
    mode = asking.choice("mode", [each.value for each in EventMode])
    return EventSearch(
        sources=chosen_sources(request, asking.text("source")),
        id=asking.text("id"),
        prefix=asking.text("prefix"),
        types=read_types(asking.text("type")),
        object_key=asking.text("object"),
        via=asking.choice("via", [each.value for each in Way]),
        state=asking.choice("state", [each.value for each in OwedState]),
        livemode=None if mode is None else mode == EventMode.LIVE,
        start_us=time_us(context, "since", asking.text("since")),
        end_us=time_us(context, "until", asking.text("until")),
    )


def state_of(event: EventItem) -> tuple[str, str]:
    """Return (icon, words) of the worst of the event's deliveries."""
    if event.deliveries is None:
        return "idle", "not shown"
    if not event.deliveries:
        return OWED_TO_NOBODY
    states = {each.state for each in event.deliveries}
    worst = next(each for each in WORST if each in states)
    done = sum(each.state == OwedState.DELIVERED for each in event.deliveries)
    icon, words = STATES[worst]
    return icon, words if len(event.deliveries) == 1 else f"{words} · {done} of {len(event.deliveries)} delivered"


def headline(shown: EventDetail) -> tuple[str, str]:
    """Return (class, sentence) of what became of the event."""
    event, parts = shown.event, list[str]()
    if event.missed is not None:
        parts.append(f"missed by webhook ({event.missed.replace('_', ' ')}), recovered by {event.via.value}")
    elif shown.awaited:
        parts.append("seen in the list first; its webhook may still come in time")
    else:
        parts.append(f"came by {event.via.value}")
    icon, words = state_of(event)
    parts.append(words)
    state = {"held": "unknown", "paused": "idle", "waiting": "hand"}.get(icon, icon)
    sentence = ", ".join(parts)
    return ("unknown" if shown.absence == "open" and state == "good" else state), sentence[0].upper() + sentence[1:]


def steps(shown: EventDetail) -> Sequence[Step]:
    """Return what happened to the event, in the order of time."""
    return sorted([*_arrival(shown.event), *_sending(shown)], key=lambda each: each.at)


def _arrival(event: EventItem) -> Iterator[Step]:
    yield Step(at=event.occurred, icon="clock", css="", text=f"Occurred at the provider of {event.source}")
    was_missed = event.missed is not None
    if event.missed is not None:
        why = event.missed.replace("_", " ")
        yield Step(at=event.occurred, icon="hole", css="trouble lost", text="Its webhook did not come", more=why)
    if event.webhook is not None:
        words = "Its webhook came late, after all" if was_missed else "Its webhook came"
        more = f"{event.webhooks} webhooks in all" if event.webhooks > 1 else ""
        icon, css = ("missed", "hand") if was_missed else ("send", "good")
        yield Step(at=event.webhook, icon=icon, css=css, text=words, more=more)
    if event.via is not Way.WEBHOOK:
        yield Step(at=event.recorded, icon="list", css="good", text=f"Recorded from the {event.via.value}")


def _sending(shown: EventDetail) -> Iterator[Step]:
    for delivery in shown.deliveries or ():
        to = delivery.destination
        for number, tried in enumerate(delivery.attempts, 1):
            good = tried.outcome == OwedState.DELIVERED
            icon, css = ("destinations", "good") if good else ("trouble", "trouble")
            words = f"{to}, attempt {number}: {tried.outcome.replace('_', ' ')}"
            yield Step(at=tried.at, icon=icon, css=css, text=words, more=tried.detail or "")
        if delivery.receipt is not None:
            yield Step(at=delivery.receipt, icon="receipt", css="good", text=f"{to} says that it has processed it")


def _may_exist(text: str) -> bool:
    return bool(text) and "\0" not in text


def _address_of(text: str, found: EventsPage | None) -> str:
    exact = found is not None and bool(found.items)
    return f"/events?{query(**({'id': text} if exact else {'prefix': text}))}" if text else "/events"


def _command(asking: Asking) -> str:
    if (named := asking.text("id")) is not None:
        return command("event", "show", named)
    names = ("source", "type", "prefix", "object", "via", "state", "mode", "since", "until")
    return command("event", "list", *(word for name in names for word in option(f"--{name}", asking.text(name))))
