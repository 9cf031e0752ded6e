"""The pages that list: missed, passes, dead letters, quarantine, unrecoverable, destinations, audit log, tokens."""

from http import HTTPStatus
from typing import Any, Final

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gapless.console.api import cursors, missed, unrecoverable
from gapless.console.api.audit_log import find_actions
from gapless.console.api.events import find_events, read_types
from gapless.console.api.missed import missing_page
from gapless.console.api.quarantine import find_refused, read_refused
from gapless.console.api.shared import PAGE, AnyRequest, chosen_sources, refuse, refuse_limited, time_us
from gapless.console.api.tokens import read_tokens
from gapless.console.api.unrecoverable import intervals_page
from gapless.console.auth import Area
from gapless.console.pages.asking import Asking
from gapless.console.pages.events import state_of
from gapless.console.pages.overview import destination_state
from gapless.console.pages.rendering import Site, page
from gapless.console.pages.waiting import find_waiting
from gapless.console.routing import guarded, make_report, principal_of
from gapless.domain import Cause
from gapless.ledger import missing as missing_ledger
from gapless.ledger import unrecoverable as unrecoverable_ledger
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.event_search import EventSearch
from gapless.ledger.unsettled import UnsettledFilter
from gapless.status.troubles import troubles

OPEN_SHOWN: Final = 100


def list_pages(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes."""
    context = site.context

    @get("/missed", guards=[guarded(Area.READ)], include_in_schema=False)
    async def missed_page(request: AnyRequest) -> Response[Any]:
        """Show what the webhooks lost, why, and how late it was recovered."""
        asking = Asking(request)
        sources = chosen_sources(request, asking.text("source"))
        wanted = EventSearch(
            sources=sources,
            missed=True,
            cause=asking.choice("cause", [each.value for each in Cause]),
            start_us=time_us(context, "since", asking.text("since")),
            end_us=time_us(context, "until", asking.text("until")),
        )
        only_open = asking.choice("state", ["open", "recovered"])
        open_ = missing_page(
            await context.read(
                missing_ledger.page, sources=sources, states=[missed.MissingState.OPEN.value], limit=OPEN_SHOWN
            )
        )
        found = None if only_open == "open" else await find_events(request, context, wanted, asking.text("after"), PAGE)
        return await page(
            site,
            request,
            "missed.html",
            active="missed",
            asking=asking,
            asked=asking.in_force("source", "cause", "state", "since", "until"),
            open_=None if only_open == "recovered" else open_,
            found=found,
            causes=[each.value for each in Cause],
            state_of=state_of,
        )

    @get("/unrecoverable", guards=[guarded(Area.READ)], include_in_schema=False)
    async def unrecoverable_page(request: AnyRequest) -> Response[Any]:
        """Show which times can never be proven."""
        asking = Asking(request)
        acknowledged = asking.choice("acknowledged", ["yes", "no"])
        found = intervals_page(
            await context.read(
                unrecoverable_ledger.page,
                sources=chosen_sources(request, asking.text("source")),
                acknowledged=None if acknowledged is None else acknowledged == "yes",
                after=cursors.decode(unrecoverable.NOUN, asking.text("after")),
                limit=PAGE,
            )
        )
        asked = asking.in_force("source", "acknowledged")
        return await page(
            site, request, "unrecoverable.html", active="unrecoverable", asking=asking, found=found, asked=asked
        )

    @get("/quarantine", guards=[guarded(Area.READ)], include_in_schema=False)
    async def quarantine_page(request: AnyRequest) -> Response[Any]:
        """Show what was refused, and whether that was right."""
        asking = Asking(request)
        found = await find_refused(
            request, context, asking.text("source"), asking.text("reason"), asking.text("after"), PAGE
        )
        asked = asking.in_force("source", "reason")
        return await page(
            site, request, "quarantine.html", active="quarantine", asking=asking, found=found, asked=asked
        )

    @get("/quarantine/{number:int}", guards=[guarded(Area.READ)], include_in_schema=False)
    async def quarantined_page(request: AnyRequest, number: FromPath[int]) -> Response[Any]:
        """Show one refused webhook."""
        shown = await read_refused(request, context, number)
        return await page(site, request, "quarantined.html", active="quarantine", shown=shown)

    @get("/dead-letters", guards=[guarded(Area.READ)], include_in_schema=False)
    async def dead_letters_page(request: AnyRequest) -> Response[Any]:
        """Show what will not arrive unless somebody acts."""
        refuse_limited(request, "dead letters")
        asking = Asking(request)
        state = asking.choice("state", ["dead", "held"]) or "dead"
        destination, source = asking.text("destination"), asking.text("source")
        chosen = UnsettledFilter(
            state=DeliveryState(state),
            destinations=None if destination is None else (destination,),
            sources=None if source is None else (source,),
            types=read_types(asking.text("type")),
            reason=asking.text("reason"),
            since_us=time_us(context, "since", asking.text("since")),
        )
        found = await find_waiting(context, chosen, asking.text("after"), PAGE)
        return await page(
            site,
            request,
            "dead-letters.html",
            active="dead-letters",
            asking=asking,
            found=found,
            state=state,
            asked=asking.in_force("destination", "source", "type", "reason", "since", "state"),
        )

    return [missed_page, unrecoverable_page, quarantine_page, quarantined_page, dead_letters_page, *_keep_pages(site)]


def _keep_pages(site: Site) -> list[HTTPRouteHandler]:
    context = site.context

    @get("/destinations", guards=[guarded(Area.READ)], include_in_schema=False)
    async def destinations_page(request: AnyRequest) -> Response[Any]:
        """Show who is behind."""
        refuse_limited(request, "destinations")
        return await _destinations(site, request, None)

    @get("/destinations/{name:str}", guards=[guarded(Area.READ)], include_in_schema=False)
    async def destination_page(request: AnyRequest, name: FromPath[str]) -> Response[Any]:
        """Show one destination."""
        refuse_limited(request, "destinations")
        return await _destinations(site, request, name)

    @get("/audit-log", guards=[guarded(Area.READ)], include_in_schema=False)
    async def audit_log_page(request: AnyRequest) -> Response[Any]:
        """Show who did what, and why."""
        refuse_limited(request, "rows of the audit log")
        asking = Asking(request)
        names = ("actor", "action", "subject")
        actor, action, subject = (asking.text(name) for name in names)
        found = await find_actions(context, actor, action, subject, asking.text("after"), PAGE)
        asked = asking.in_force(*names)
        return await page(site, request, "audit-log.html", active="audit-log", asking=asking, found=found, asked=asked)

    @get("/tokens", guards=[guarded(Area.READ)], include_in_schema=False)
    async def tokens_page(request: AnyRequest) -> Response[Any]:
        """Show who may do what."""
        refuse_limited(request, "tokens")
        found = await read_tokens(context)
        return await page(site, request, "tokens.html", active="tokens", found=found, me=principal_of(request).name)

    return [destinations_page, destination_page, audit_log_page, tokens_page]


async def _destinations(site: Site, request: AnyRequest, name: str | None) -> Response[Any]:
    report = await make_report(site.context, principal_of(request))
    found = troubles(report)
    chosen = [each for each in report.destinations if name in (None, each.name)]
    if name is not None and not chosen:
        refuse(f"destination {name!r} is not known", HTTPStatus.NOT_FOUND)
    cards = [
        (each, *destination_state(found, each), [one for one in found if one.destination == each.name])
        for each in chosen
    ]
    return await page(site, request, "destinations.html", active="destinations", report=report, cards=cards, name=name)
