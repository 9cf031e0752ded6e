"""The overview page: one look that answers whether anything is missing. Made on the server, without a script."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gapless.console.standing import DISBELIEVED, SourceStanding, Standing
from gapless.domain import Mode, from_us

TEMPLATES: Final = Path(__file__).parent / "templates"
STYLE: Final = (TEMPLATES / "style.css").read_bytes()
REFRESH_S: Final = 15
_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def overview(standing: Standing, *, version: str) -> str:
    """The page as HTML. Every value in it is escaped."""
    page = _environment.get_template("overview.html")
    return page.render(standing=standing, version=version, refresh_s=REFRESH_S, verdict=verdict_of)


def verdict_of(source: SourceStanding) -> tuple[str, str]:
    """(good | bad | unknown, one line): what a person should know first of a source."""
    trouble = _trouble(source)
    if trouble is not None:
        return "bad", trouble
    if source.listed is None:
        return "unknown", "There is no list to compare with: what is lost cannot be seen."
    if source.listed.proof.complete_up_to is None:
        return "unknown", "Not compared with the provider's list yet."
    return "good", "Agrees with the provider's list."


def _trouble(source: SourceStanding) -> str | None:
    """The first thing that is wrong, or None."""
    parked = [stream.parked_reason for stream in source.streams if stream.parked_reason]
    if source.state != "active":
        return f"{source.state.capitalize()}: {source.reason or 'no reason is written down'}"
    if parked:
        return f"Not read: {parked[0]}"
    if any(stream.last_outcome in DISBELIEVED for stream in source.streams):
        return "The provider's list cannot be believed at present."
    if source.listed is not None and source.listed.missing_open:
        return f"{source.listed.missing_open} known events are not recorded yet."
    if source.subscription_healthy is False and source.mode is Mode.HYBRID:
        return f"The provider does not send to us: {source.subscription_reason or 'no reason given'}"
    return None


def show_time(time: datetime | None) -> str:
    """A time for people, with the exact one behind it."""
    if time is None:
        return Markup('<span class="unknown">unknown</span>')
    return Markup('<time datetime="{}">{}</time>').format(time.isoformat(), f"{time:%Y-%m-%d %H:%M:%S} UTC")


def show_span(span: timedelta | None) -> str:
    """A length of time in its two largest units."""
    if span is None:
        return Markup('<span class="unknown">unknown</span>')
    rest, parts = max(0, int(span.total_seconds())), []
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def show_count(count: int | None) -> str:
    """A count with its thousands apart."""
    return Markup('<span class="unknown">unknown</span>') if count is None else f"{count:,}".replace(",", "\u202f")


def show_rate(rate: float | None) -> str:
    """A share of 1 in percent."""
    if rate is None:
        return Markup('<span class="unknown">unknown</span>')
    return "0\u202f%" if rate == 0 else f"{rate:.3%}".replace("%", "\u202f%")


_environment = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_environment.filters |= {
    "time": show_time,
    "span": show_span,
    "count": show_count,
    "rate": show_rate,
    "moment": from_us,
}
