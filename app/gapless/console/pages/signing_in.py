"""`/login` and `/logout`: a browser shows a token once, and gets a cookie for a shift."""

from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from litestar import Response, get, post
from litestar.datastructures import Cookie
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler

from gapless.console import browser_sessions
from gapless.console.api.shared import AnyRequest
from gapless.console.auth import Area
from gapless.console.gate import Gate
from gapless.console.pages.acting import FORM_MOST, local_path, own_form, redirect
from gapless.console.pages.rendering import HTML, Site, render
from gapless.console.routing import guarded, respond
from gapless.domain import span_us

LASTS_S = span_us(browser_sessions.LASTS) // 1_000_000


def sign_in_routes(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes."""

    @get("/login", guards=[guarded(Area.PROBE)], include_in_schema=False)
    async def ask(request: AnyRequest) -> Response[Any]:
        """Ask for a token."""
        return _question(site, request.query_params.get("next"))

    @post("/login", guards=[guarded(Area.PROBE)], status_code=200, include_in_schema=False)
    async def sign_in(request: AnyRequest) -> Response[Any]:
        """Begin a session."""
        body = (await request.body())[:FORM_MOST].decode(errors="replace")
        fields = dict(parse_qsl(body, max_num_fields=10))
        gate: Gate = request.app.state.gate
        try:
            cookie = await gate.sign_in(request, fields.get("token", "").strip())
        except HTTPException as error:
            return _question(site, fields.get("next"), problem=error.detail, status=error.status_code)
        answer = redirect(local_path(fields.get("next")))
        answer.cookies.append(_cookie(request, cookie, LASTS_S))
        return answer

    @post("/logout", guards=[guarded(Area.READ)], status_code=200, include_in_schema=False)
    async def sign_out(request: AnyRequest) -> Response[Any]:
        """End the session, in all processes."""
        await own_form(request)
        await browser_sessions.end(site.context.runtime, request.scope["state"]["session"])
        answer = redirect("/login")
        answer.cookies.append(_cookie(request, "", 0))
        return answer

    return [ask, sign_in, sign_out]


def _question(site: Site, next_: str | None, *, problem: str = "", status: int = HTTPStatus.OK) -> Response[bytes]:
    now = site.context.runtime.clock()
    body = render("login.html", now, next=local_path(next_), problem=problem, lasts=browser_sessions.LASTS)
    return respond(status, body.encode(), HTML)


def _cookie(request: AnyRequest, value: str, lasts_s: int) -> Cookie:
    """Return the cookie of a session: no script reads it, and no other site sends it with a form."""
    return Cookie(
        key=browser_sessions.COOKIE,
        value=value,
        max_age=lasts_s,
        path="/",
        httponly=True,
        secure=request.url.scheme == "https",
        samesite="lax",
    )
