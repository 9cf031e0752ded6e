"""Every page, and what a browser is told when one is refused."""

from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from litestar import Response
from litestar.handlers import HTTPRouteHandler

from gapless.console.api.shared import AnyRequest
from gapless.console.pages import acting, assets, events, lists, overview, passes, signing_in
from gapless.console.pages.rendering import HTML, Site, render
from gapless.console.routing import ConsoleOptions, respond
from gapless.domain import system_clock
from gapless.operations.context import OperationContext


def page_routes(options: ConsoleOptions, context: OperationContext) -> list[HTTPRouteHandler]:
    """Return every route of the pages."""
    site = Site(options=options, context=context)
    return [
        assets.assets_route(),
        *signing_in.sign_in_routes(site),
        *overview.overview_routes(site),
        *events.event_pages(site),
        *passes.pass_pages(site),
        *lists.list_pages(site),
        *acting.action_routes(site),
    ]


def wants_page(request: AnyRequest) -> bool:
    """Return True if a browser asks for a page, so that it is answered by one."""
    is_page = not request.url.path.startswith(("/api/", "/metrics", "/livez", "/readyz"))
    return is_page and "text/html" in request.headers.get("accept", "")


def refusal_page(request: AnyRequest, status: int, detail: str) -> Response[Any]:
    """Return the page that says what was wrong; who must sign in is led there."""
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if status == HTTPStatus.UNAUTHORIZED and request.method == "GET":
        headers = {"location": f"/login?{urlencode({'next': here})}", "cache-control": "no-store"}
        return respond(HTTPStatus.SEE_OTHER, b"", HTML, headers)
    title = HTTPStatus(status).phrase
    body = render("error.html", system_clock(), status=status, title=title, detail=detail, path=here)
    return respond(status, body.encode(), HTML)
