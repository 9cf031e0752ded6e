"""The overview page, which shows at once if anything is missing. Rendered on the server, without a script."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from markupsafe import Markup

from gapless.console.auth import Area
from gapless.console.routing import ConsoleOptions, guarded, make_report, principal_of, respond
from gapless.domain import from_us
from gapless.operations.context import OperationContext
from gapless.status.figures import SOURCE_FIGURES, Value
from gapless.status.reading import reading_in_words
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
        reading=reading_in_words,
    )


def source_state(found: Sequence[Trouble], source: SourceReport) -> tuple[str, str, str]:
    """Return (state, word, line) of a source: its worst trouble, or good if it has none.

    A source that can prove nothing is `blind` if it has no trouble.
    """
    own = [each for each in found if each.source == source.name]
    if own:
        return own[0].severity.value, WORDS[own[0].severity], own[0].text
    if is_blind(source):
        return "blind", "Cannot be proven", notes(source)[0]
    return Severity.GOOD.value, WORDS[Severity.GOOD], "Agrees with the provider's list."


def destination_state(found: Sequence[Trouble], destination: DestinationReport) -> Severity:
    """Return the worst severity among the troubles of a destination."""
    return verdict(each for each in found if each.destination == destination.name)


def show_time(time: datetime | None) -> str:
    """Return a time for people, with the exact time as attribute."""
    if time is None:
        return Markup('<span class="unknown">unknown</span>')
    return Markup('<time datetime="{}">{}</time>').format(time.isoformat(), f"{time:%Y-%m-%d %H:%M:%S} UTC")


def show_span(span: timedelta | None) -> str:
    """Return a duration in its two largest units."""
    if span is None:
        return Markup('<span class="unknown">unknown</span>')
    return " ".join(f"{count} {'min' if unit == 'm' else unit}" for count, unit in largest_units(span))


def show_count(count: int | None) -> str:
    """Return a count with separated thousands."""
    return Markup('<span class="unknown">unknown</span>') if count is None else f"{count:,}".replace(",", "\u202f")


def show_rate(rate: float | None) -> str:
    """Return a share of 1 in percent."""
    if rate is None:
        return Markup('<span class="unknown">unknown</span>')
    return "0\u202f%" if rate == 0 else f"{rate:.3%}".replace("%", "\u202f%")


def show_value(value: Value) -> str:
    """Return a figure by its type: a time, a duration, a state, a share or a count."""
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

    @get("/", guards=[guarded(Area.READ)])
    async def overview(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Return the overview page."""
        page = render_overview(await make_report(context, principal_of(request)), version=options.version)
        return respond(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8")

    return overview


def style_route() -> HTTPRouteHandler:
    """`GET /style.css`."""

    @get("/style.css", guards=[guarded(Area.READ)])
    async def style() -> Response[bytes]:
        """Return the style sheet."""
        return respond(HTTPStatus.OK, STYLE, "text/css; charset=utf-8")

    return style
