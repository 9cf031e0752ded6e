"""Renders the pages: the templates, what every page shows, and the answer.

The verdict in the bar is that of `status.troubles`, as everywhere.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Response
from litestar.datastructures import Cookie

from gapless.console.api.shared import AnyRequest
from gapless.console.browser_sessions import form_secret
from gapless.console.pages import formats
from gapless.console.pages.assets import ADDRESSES
from gapless.console.pages.flash import FLASH, take_flash
from gapless.console.pages.preview import command
from gapless.console.routing import ConsoleOptions, make_report, principal_of, respond
from gapless.domain import from_us
from gapless.ledger.deliveries import DeliveryState
from gapless.operations.context import OperationContext
from gapless.operations.principals import AccessRole, Principal, may_ask
from gapless.status.report import StatusReport
from gapless.status.troubles import Severity, summary, troubles, verdict

TEMPLATES: Final = Path(__file__).parent / "templates"
TREE_MOST: Final = 32 << 10
"""Most bytes of a payload that are shown as a tree: each of its values becomes an element."""
HTML: Final = "text/html; charset=utf-8"
MENU: Final = (
    ("Watch", (("overview", "/", "Overview", "overview"), ("live", "/live", "Live", "live"))),
    (
        "Look",
        (
            ("events", "/events", "Events", "events"),
            ("missed", "/missed", "Missed", "missed"),
            ("passes", "/passes", "Passes", "passes"),
        ),
    ),
    (
        "Mend",
        (
            ("dead-letters", "/dead-letters", "Dead letters", "dead"),
            ("quarantine", "/quarantine", "Quarantine", "quarantine"),
            ("unrecoverable", "/unrecoverable", "Unrecoverable", "unrecoverable"),
        ),
    ),
    (
        "Keep",
        (
            ("destinations", "/destinations", "Destinations", "destinations"),
            ("audit-log", "/audit-log", "Audit log", "audit"),
            ("tokens", "/tokens", "Tokens", "tokens"),
        ),
    ),
)
"""The groups of the menu: (name of the page, address, words, icon)."""
OF_ALL_SOURCES: Final = frozenset(("dead-letters", "destinations", "audit-log", "tokens"))
"""Pages that a limited token does not open."""
CLASSES: Final = {Severity.IN_HAND: "hand"}
"""The class and icon of a severity, where its name is another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What pages need of the process."""

    options: ConsoleOptions
    context: OperationContext


def css(severity: Severity) -> str:
    """Return the class and icon of a severity."""
    return CLASSES.get(severity, severity.value)


async def page(
    site: Site,
    request: AnyRequest,
    template: str,
    *,
    active: str = "",
    status: int = HTTPStatus.OK,
    report: StatusReport | None = None,
    **values: Any,
) -> Response[bytes]:
    """Return a page within the frame. Raises `StoreError`."""
    principal = principal_of(request)
    report = report or await make_report(site.context, principal)
    cookie: str | None = request.scope["state"].get("session")
    shown = frame(
        report,
        version=site.options.version,
        principal=principal,
        here=request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        cookie=cookie,
        flash=take_flash(request),
    )
    body = render(template, report.at, **shown, active=active, **values)
    return with_cookie(respond(status, body.encode(), HTML), request)


def with_cookie(answer: Response[bytes], request: AnyRequest) -> Response[bytes]:
    """Return the answer; it takes away the message that the page has just shown."""
    if request.cookies.get(FLASH):
        answer.cookies.append(Cookie(key=FLASH, value="", max_age=0, path="/", httponly=True, samesite="lax"))
    return answer


def frame(
    report: StatusReport,
    *,
    version: str,
    principal: Principal,
    here: str = "/",
    cookie: str | None = None,
    flash: str = "",
) -> dict[str, Any]:
    """Return what every page shows. `here`: its address. `cookie`: of the session; None: nobody has signed in. Pure."""
    found = troubles(report)
    return {
        "here": here,
        "report": report,
        "verdict": css(verdict(found)),
        "summary": summary(found),
        "counts": _counts(report),
        "menu": [
            (group, [each for each in entries if not (principal.is_limited and each[0] in OF_ALL_SOURCES)])
            for group, entries in MENU
        ],
        "principal": principal,
        "signed_in": cookie is not None,
        "csrf": "" if cookie is None else form_secret(cookie),
        "may_act": cookie is not None and may_ask(principal.role, AccessRole.OPERATOR),
        "may_own": cookie is not None and principal.role is AccessRole.OWNER,
        "version": version,
        "flash": flash,
    }


def render(template: str, now: datetime, /, **values: Any) -> str:
    """Return a template with these values. What tells of time does so as of `now`."""
    return _environment.get_template(template).render(
        now=now,
        time=partial(formats.time, now=now),
        clock=partial(formats.clock, now=now),
        ago=partial(formats.ago, now=now),
        until=partial(formats.until, now=now),
        figure=partial(formats.value, now=now),
        **values,
    )


def _counts(report: StatusReport) -> Mapping[str, tuple[int, bool, str]]:
    """Return what asks for something, by page: (number, part of the verdict, words)."""
    dead = sum(each.backlog[DeliveryState.DEAD] for each in report.destinations)
    open_ = sum(each.listed.missing_open for each in report.sources if each.listed is not None)
    lost = sum(len(each.not_acknowledged) for each in report.sources)
    failing = sum(len(each.failing) for each in report.sources)
    expired = sum(each.quarantine_expired for each in report.sources)
    counts = {
        "dead-letters": (dead, True, "dead letters"),
        "missed": (open_, False, "not recorded yet"),
        "unrecoverable": (lost, True, "not acknowledged"),
        "passes": (failing, True, "failed on demand"),
        "quarantine": (expired, True, "purged unjudged"),
    }
    return {name: each for name, each in counts.items() if each[0]}


def query(**values: object) -> str:
    """Return the values that there are as the query of an address."""
    return urlencode({name: value for name, value in values.items() if value not in (None, "", False)})


def event_path(source: str, key: str) -> str:
    """Return the address of an event's page."""
    return f"/events/{quote(source, safe='')}/{quote(key, safe='')}"


_environment = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_environment.filters |= {
    "count": formats.count,
    "rate": formats.rate,
    "span": formats.span,
    "seconds": formats.seconds,
    "iso": formats.iso,
    "wbr": formats.breakable,
    "words": formats.words,
    "shell": shlex.quote,
    "code": formats.with_code,
    "listed": formats.listed,
    "css": css,
}
_environment.globals |= {
    "query": query,
    "command": command,
    "tree_most": TREE_MOST,
    "event_path": event_path,
    "unknown": formats.UNKNOWN,
    "assets": ADDRESSES,
    "moment": from_us,
}
