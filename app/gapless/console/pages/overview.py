"""The overview page: one look that answers whether anything is missing. Made on the server, without a script."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from markupsafe import Markup

from gapless.console.auth import Area
from gapless.console.routing import ConsoleOptions, guarded, make_report, respond
from gapless.domain import from_us
from gapless.operations.context import OperationContext
from gapless.status.figures import SOURCE_FIGURES, Value
from gapless.status.report import DestinationReport, SourceReport, StatusReport
from gapless.status.troubles import Severity, Trouble, is_blind, notes, summary, troubles, verdict
from gapless.text import largest_units

TEMPLATES: Final = Path(__file__).parent / "templates"
STYLE: Final = (TEMPLATES / "style.css").read_bytes()
REFRESH_S: Final = 15
WORDS: Final[Mapping[Severity, str]] = {
    Severity.TROUBLE: "Look here",
    Severity.UNKNOWN: "Unknown",
    Severity.IN_HAND: "In hand",
    Severity.GOOD: "Complete",
}


def render_overview(report: StatusReport, *, version: str) -> str:
    """Return the page as HTML. Every value in it is escaped."""
    found = troubles(report)
    return _environment.get_template("overview.html").render(
        report=report,
        version=version,
        refresh_s=REFRESH_S,
        troubles=found,
        verdict=verdict(found),
        summary=summary(found),
        source_state=partial(source_state, found),
        destination_state=partial(destination_state, found),
        source_figures=SOURCE_FIGURES,
        notes=notes,
    )


def source_state(found: Sequence[Trouble], source: SourceReport) -> tuple[str, str, str]:
    """Return (state, word, line): what a person should know first of a source. Good only if nothing is wrong with it.

    A source of which nothing can be proven is `blind`, unless something is wrong with it.
    """
    mine = [each for each in found if each.source == source.name]
    if mine:
        return mine[0].severity.value, WORDS[mine[0].severity], mine[0].text
    if is_blind(source):
        return "blind", "Cannot be proven", notes(source)[0]
    return Severity.GOOD.value, WORDS[Severity.GOOD], "Agrees with the provider's list."


def destination_state(found: Sequence[Trouble], destination: DestinationReport) -> Severity:
    """Return the worst of what is wrong with a destination."""
    return verdict(each for each in found if each.destination == destination.name)


def show_time(time: datetime | None) -> str:
    """A time for people, with the exact one behind it."""
    if time is None:
        return Markup('<span class="unknown">unknown</span>')
    return Markup('<time datetime="{}">{}</time>').format(time.isoformat(), f"{time:%Y-%m-%d %H:%M:%S} UTC")


def show_span(span: timedelta | None) -> str:
    """A length of time in its two largest units."""
    if span is None:
        return Markup('<span class="unknown">unknown</span>')
    return " ".join(f"{count} {'min' if unit == 'm' else unit}" for count, unit in largest_units(span))


def show_count(count: int | None) -> str:
    """A count with its thousands apart."""
    return Markup('<span class="unknown">unknown</span>') if count is None else f"{count:,}".replace(",", "\u202f")


def show_rate(rate: float | None) -> str:
    """A share of 1 in percent."""
    if rate is None:
        return Markup('<span class="unknown">unknown</span>')
    return "0\u202f%" if rate == 0 else f"{rate:.3%}".replace("%", "\u202f%")


def show_value(value: Value) -> str:
    """A figure, by what it is: a time, a length of time, a state, a share or a count."""
    if isinstance(value, datetime):
        return show_time(value)
    if isinstance(value, timedelta):
        return show_span(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return show_rate(value) if isinstance(value, float) else show_count(value)


_environment = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_environment.filters |= {
    "time": show_time,
    "span": show_span,
    "count": show_count,
    "rate": show_rate,
    "value": show_value,
    "moment": from_us,
}


def overview_route(options: ConsoleOptions, context: OperationContext) -> HTTPRouteHandler:
    """`GET /`: the overview."""

    @get("/", guards=[guarded(options.access, Area.READ)])
    async def overview() -> Response[bytes]:
        """One page that tells at a glance how everything stands."""
        page = render_overview(await make_report(options, context), version=options.version)
        return respond(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8")

    return overview


def style_route(options: ConsoleOptions) -> HTTPRouteHandler:
    """`GET /style.css`."""

    @get("/style.css", guards=[guarded(options.access, Area.READ)])
    async def style() -> Response[bytes]:
        """The looks of the page."""
        return respond(HTTPStatus.OK, STYLE, "text/css; charset=utf-8")

    return style
