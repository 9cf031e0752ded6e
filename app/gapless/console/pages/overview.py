"""The overview: is anything missing or late? One verdict, a tile for each source, then the destinations."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gapless.console.api.hours import HoursOfSource, read_hours
from gapless.console.api.shared import AnyRequest, refuse
from gapless.console.auth import Area
from gapless.console.pages.charts import Chart, chart
from gapless.console.pages.rendering import Site, css, page
from gapless.console.routing import guarded, make_report, principal_of
from gapless.domain import Mode
from gapless.ledger.deliveries import DeliveryState
from gapless.operations.context import OperationContext
from gapless.status.figures import SOURCE_FIGURES
from gapless.status.reading import reading_in_words
from gapless.status.report import DestinationReport, SourceReport, StatusReport
from gapless.status.troubles import Severity, Trouble, TroubleKind, is_blind, notes, troubles, verdict

REFRESH_S: Final = 15
WEEK: Final = 7 * 24
LINKS: Final = {
    TroubleKind.EVENTS_MISSING: "/missed?state=open",
    TroubleKind.ROWS_UNREADABLE: "/missed?state=open",
    TroubleKind.WEBHOOKS_LOST: "/missed",
    TroubleKind.DEAD_LETTERS: "/dead-letters",
    TroubleKind.DELIVERIES_HELD: "/dead-letters?state=held",
    TroubleKind.DELIVERIES_LATE: "/destinations",
    TroubleKind.QUARANTINE_EXPIRED: "/quarantine",
    TroubleKind.UNRECOVERABLE: "/unrecoverable",
    TroubleKind.EVENTS_LOST: "/unrecoverable",
    TroubleKind.DEMAND_FAILED: "/passes",
    TroubleKind.READ_FAILED: "/passes",
}
"""Where each kind of trouble is looked into."""
READ_NOW: Final = frozenset((TroubleKind.PROOF_STALLED, TroubleKind.NEVER_COMPARED, TroubleKind.STREAM_PARKED))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTrouble:
    """One trouble with where to look, and what can be done at once."""

    trouble: Trouble
    css: str
    link: str | None
    reads: bool
    """Reading the list now may help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """What the overview shows of one source."""

    source: SourceReport
    state: str
    word: str
    chart: Chart | None
    notes: Sequence[str]
    reading: Sequence[str]


def overview_routes(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes."""

    @get("/", guards=[guarded(Area.READ)], include_in_schema=False)
    async def overview(request: AnyRequest) -> Response[Any]:
        """Show whether anything is missing or late."""
        report = await make_report(site.context, principal_of(request))
        hours = {each.name: await _hours(site.context, each, report.at) for each in report.sources}
        shown = overview_values(report, hours)
        return await page(site, request, "overview.html", active="overview", report=report, **shown)

    @get("/sources/{name:str}", guards=[guarded(Area.READ)], include_in_schema=False)
    async def source(request: AnyRequest, name: FromPath[str]) -> Response[Any]:
        """Show one source: its tile at full width, its streams, its hours as a table."""
        report = await make_report(site.context, principal_of(request))
        found = next((each for each in report.sources if each.name == name), None)
        if found is None:
            refuse(f"source {name!r} is not configured", HTTPStatus.NOT_FOUND)
        hours = await _hours(site.context, found, report.at)
        return await page(site, request, "source.html", report=report, **source_values(report, found, hours))

    return [overview, source]


def overview_values(report: StatusReport, hours: Mapping[str, HoursOfSource | None]) -> dict[str, Any]:
    """Return what the overview shows. `hours` by source; a source without them is not running here. Pure."""
    found = troubles(report)
    proofs = [each.listed.proof.complete_up_to for each in report.sources if each.listed is not None]
    return {
        "problems": [problem_of(each) for each in found],
        "tiles": [tile_of(report, found, each, hours.get(each.name)) for each in report.sources],
        "rows": [(each, *destination_state(found, each)) for each in report.destinations],
        "day": _day(hours.values()),
        "proven_up_to": min((each for each in proofs if each is not None), default=None),
        "proven": [each.name for each in report.sources if not is_blind(each)],
        "blind": [each.name for each in report.sources if is_blind(each)],
        "refresh_s": REFRESH_S,
    }


def source_values(report: StatusReport, source: SourceReport, hours: HoursOfSource | None) -> dict[str, Any]:
    """Return what the page of a source shows. Pure."""
    own = [each for each in troubles(report) if each.source == source.name]
    return {
        "tile": tile_of(report, own, source, hours),
        "problems": [problem_of(each) for each in own],
        "hours": None if hours is None else list(reversed(hours.items)),
        "figures": SOURCE_FIGURES,
        "refresh_s": REFRESH_S,
    }


def problem_of(trouble: Trouble) -> ShownTrouble:
    """Return a trouble with where to look."""
    link = LINKS.get(trouble.kind)
    if link is not None and trouble.source is not None and link in ("/missed", "/unrecoverable", "/passes"):
        link = f"{link}?source={trouble.source}"
    return ShownTrouble(
        trouble=trouble,
        css=css(trouble.severity),
        link=link,
        reads=trouble.source is not None and trouble.kind in READ_NOW,
    )


def tile_of(report: StatusReport, found: Sequence[Trouble], source: SourceReport, hours: HoursOfSource | None) -> Tile:
    """Return what is shown of a source: its worst trouble, or that it is complete, or that nothing can be proven."""
    own = [each for each in found if each.source == source.name]
    state, word = source_state(own, source)
    picture = None if hours is None else chart(hours, polled=source.mode is Mode.POLL, now=report.at)
    reading = [] if source.listed is None else reading_in_words(source.listed)
    return Tile(source=source, state=state, word=word, chart=picture, notes=notes(source), reading=reading)


def source_state(own: Sequence[Trouble], source: SourceReport) -> tuple[str, str]:
    """Return (class, word) of a source by its own troubles, the worst first."""
    if own:
        return css(own[0].severity), own[0].kind.value.replace("_", " ")
    return ("blind", "blind") if is_blind(source) else ("good", "complete")


def destination_state(found: Sequence[Trouble], destination: DestinationReport) -> tuple[str, str]:
    """Return (class, word) of a destination."""
    own = [each for each in found if each.destination == destination.name]
    if own:
        return css(verdict(own)), own[0].kind.value.replace("_", " ")
    if destination.state != "active":
        return "idle", destination.state
    if destination.pause is not None:
        return "paused", "paused"
    waits = destination.backlog[DeliveryState.PENDING]
    return ("hand", "sending") if waits else (css(Severity.GOOD), "nothing waits")


def _day(hours: Iterable[HoursOfSource | None]) -> dict[str, int]:
    """Return the sums of all sources over the hours that are shown."""
    items = [each for of_source in hours if of_source is not None for each in of_source.items]
    return {
        name: sum(getattr(each, name) for each in items)
        for name in ("by_webhook", "by_list", "by_redelivery", "missed", "missing")
    }


async def _hours(context: OperationContext, source: SourceReport, now: datetime) -> HoursOfSource | None:
    """Return the hours of a source; None: it is not running here."""
    if source.name not in context.sources:
        return None
    return await read_hours(context, context.sources[source.name], source, now)
