"""`/api/v1/status`, `/api/v1/sources` and `/api/v1/destinations`: parts of the one report that everything shows."""

from http import HTTPStatus
from typing import Any

from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import Struct

from gapless.console.api.shared import AnyRequest, reading, refuse, refuse_limited
from gapless.console.routing import make_report, principal_of
from gapless.operations.context import OperationContext
from gapless.status import values
from gapless.status.troubles import troubles


class ReportItem(Struct, frozen=True, kw_only=True):
    """A source or a destination, as `/api/v1/status` has it; `troubles` are its own."""

    name: str
    verdict: str
    """`trouble`, `unknown`, `in_hand` or `good`."""
    facts: dict[str, Any]
    troubles: list[dict[str, Any]]


class ReportItems(Struct, frozen=True, kw_only=True):
    """All of them."""

    items: list[ReportItem]


def report_routes(context: OperationContext) -> list[HTTPRouteHandler]:
    """Return the routes."""

    @reading("/status", tag="status")
    async def show_status(request: AnyRequest) -> dict[str, Any]:
        """Return the whole report: the verdict, every trouble with what to do next, sources, destinations."""
        return values.of_report(await make_report(context, principal_of(request)))

    @reading("/sources", tag="sources")
    async def list_sources(request: AnyRequest) -> ReportItems:
        """List sources with what is proven of each."""
        return ReportItems(items=await _sources(request, context))

    @reading("/sources/{source:str}", tag="sources")
    async def show_source(request: AnyRequest, source: FromPath[str]) -> ReportItem:
        """Show one source."""
        found = next((each for each in await _sources(request, context) if each.name == source), None)
        return found or refuse(f"source {source!r} is not configured", HTTPStatus.NOT_FOUND)

    @reading("/destinations", tag="destinations")
    async def list_destinations(request: AnyRequest) -> ReportItems:
        """List destinations with what each is owed."""
        refuse_limited(request, "destinations")
        return ReportItems(items=await _destinations(context))

    @reading("/destinations/{destination:str}", tag="destinations")
    async def show_destination(request: AnyRequest, destination: FromPath[str]) -> ReportItem:
        """Show one destination."""
        refuse_limited(request, "destinations")
        found = next((each for each in await _destinations(context) if each.name == destination), None)
        return found or refuse(f"destination {destination!r} is not known", HTTPStatus.NOT_FOUND)

    return [show_status, list_sources, show_source, list_destinations, show_destination]


async def _sources(request: AnyRequest, context: OperationContext) -> list[ReportItem]:
    report = await make_report(context, principal_of(request))
    found = troubles(report)
    return [
        _named(values.of_source(each, found), [values.of_trouble(one) for one in found if one.source == each.name])
        for each in report.sources
    ]


async def _destinations(context: OperationContext) -> list[ReportItem]:
    report = await make_report(context)
    found = troubles(report)
    return [
        _named(
            values.of_destination(each, found),
            [values.of_trouble(one) for one in found if one.destination == each.name],
        )
        for each in report.destinations
    ]


def _named(facts: dict[str, Any], found: list[dict[str, Any]]) -> ReportItem:
    rest = {name: value for name, value in facts.items() if name not in ("name", "verdict")}
    return ReportItem(name=facts["name"], verdict=facts["verdict"], facts=rest, troubles=found)
