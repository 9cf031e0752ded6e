"""`/login` and `/logout`: a browser shows a token, or asks the identity provider, and gets a cookie for a shift."""

import logging
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlencode

from litestar import Response, get, post
from litestar.datastructures import Cookie
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler

from gapless.console import browser_sessions, oidc
from gapless.console.api.shared import AnyRequest
from gapless.console.auth import Area
from gapless.console.gate import Gate
from gapless.console.oidc import OidcOptions, SignInRefused
from gapless.console.pages.acting import FORM_MOST, local_path, own_form, redirect
from gapless.console.pages.rendering import HTML, Site, render
from gapless.console.routing import guarded, respond
from gapless.domain import span_us
from gapless.errors import UserError

log = logging.getLogger(__name__)
ATTEMPT_LASTS_S = span_us(oidc.ATTEMPT_LASTS) // 1_000_000
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
            problem = f"this token does not open the console: {error.detail}"
            return _question(site, fields.get("next"), problem=problem, status=error.status_code)
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

    return [ask, sign_in, sign_out, *_oidc_routes(site)]


def _oidc_routes(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes that lead to the identity provider and back; none if there is none."""
    if (provider := site.options.identity_provider) is None:
        return []

    @get("/login/oidc", guards=[guarded(Area.PROBE)], include_in_schema=False)
    async def leave(request: AnyRequest) -> Response[Any]:
        """Send the browser to the identity provider."""
        attempt = oidc.begin(local_path(request.query_params.get("next")))
        try:
            answer = redirect(await provider.sign_in_url(attempt))
        except UserError as error:
            return _unavailable(site, attempt.next, error)
        answer.cookies.append(_attempt_cookie(provider.options, attempt.as_cookie(), ATTEMPT_LASTS_S))
        return answer

    @get(oidc.CALLBACK, guards=[guarded(Area.PROBE)], include_in_schema=False)
    async def come_back(request: AnyRequest) -> Response[Any]:
        """Begin the session of whoever the identity provider names."""
        gate: Gate = request.app.state.gate
        gate.make_wait(request)
        attempt = oidc.attempt_of(request.cookies.get(oidc.ATTEMPT_COOKIE))
        next_ = local_path(attempt.next if attempt else None)
        try:
            begun, code = oidc.came_back(dict(request.query_params), attempt, provider.options.issuer)
            principal = oidc.principal_of(provider.options, await provider.claims(begun, code))
        except SignInRefused as error:
            gate.note_refused(request)
            answer = _question(site, next_, problem=f"you are not signed in: {error}", status=HTTPStatus.FORBIDDEN)
        except UserError as error:
            answer = _unavailable(site, next_, error)
        else:
            answer = redirect(next_)
            answer.cookies.append(_cookie(request, await gate.sign_in_as(principal, provider.options), LASTS_S))
        answer.cookies.append(_attempt_cookie(provider.options, "", 0))
        return answer

    return [leave, come_back]


def _unavailable(site: Site, next_: str, error: UserError) -> Response[Any]:
    """Say that the identity provider cannot be asked; why is in the log, because it names addresses of ours."""
    log.error("oidc_unavailable", extra={"error": str(error)})
    problem = "the identity provider cannot be asked just now; the log says why"
    return _question(site, next_, problem=problem, status=HTTPStatus.SERVICE_UNAVAILABLE)


def _attempt_cookie(options: OidcOptions, value: str, lasts_s: int) -> Cookie:
    return Cookie(
        key=oidc.ATTEMPT_COOKIE,
        value=value,
        max_age=lasts_s,
        path="/login",
        httponly=True,
        secure=options.url.startswith("https://"),
        samesite="lax",  # the provider leads back by a link
    )


def _question(site: Site, next_: str | None, *, problem: str = "", status: int = HTTPStatus.OK) -> Response[bytes]:
    now = site.context.runtime.clock()
    provider = site.options.identity_provider
    asks = None if provider is None else f"/login/oidc?{urlencode({'next': local_path(next_)})}"
    body = render(
        "login.html", now, next=local_path(next_), problem=problem, lasts=browser_sessions.LASTS, provider=asks
    )
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
