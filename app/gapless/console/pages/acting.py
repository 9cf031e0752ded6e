"""`/actions/<name>`: the page that asks before an action, and the action."""

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gapless.console.api.shared import AnyRequest, refuse
from gapless.console.auth import Area
from gapless.console.browser_sessions import FORM_FIELD, is_own_form
from gapless.console.pages.actions import ACTIONS
from gapless.console.pages.flash import flash_cookie
from gapless.console.pages.preview import Asked, NothingToDo
from gapless.console.pages.rendering import Site, page
from gapless.console.routing import HEADERS, guarded, make_report, perform_for, principal_of, respond
from gapless.operations.context import ApprovalNeeded, OperationRefused
from gapless.operations.principals import may_ask
from gapless.operations.registry import OPERATIONS

FORM: Final = "application/x-www-form-urlencoded"
FORM_MOST: Final = 64 << 10
"""Most bytes of a form."""
NOT_ASKED: Final = frozenset((FORM_FIELD, "back", "note"))
REASON_LEAST: Final = 4


def action_routes(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes."""

    @get("/actions/{name:str}", guards=[guarded(Area.READ)], include_in_schema=False)
    async def ask(request: AnyRequest, name: FromPath[str]) -> Response[Any]:
        """Say what the action would do, and ask for a reason."""
        asked = {key: value for key, value in request.query_params.items() if value}
        return await _question(site, request, name, asked)

    @post("/actions/{name:str}", guards=[guarded(Area.WRITE, by_form=True)], status_code=200, include_in_schema=False)
    async def act(request: AnyRequest, name: FromPath[str]) -> Response[Any]:
        """Do it, and go back."""
        asked = await own_form(request)
        try:
            return await _act(site, request, name, asked)
        except (NothingToDo, OperationRefused) as error:
            return await _question(site, request, name, asked, problem=str(error), status=HTTPStatus.BAD_REQUEST)
        except ApprovalNeeded as error:
            return await _question(site, request, name, asked, problem=str(error), status=HTTPStatus.CONFLICT)

    return [ask, act]


async def own_form(request: AnyRequest) -> dict[str, str]:
    """Return the fields of a form of this session. Raises `HTTPException` for any other."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if content_type != FORM or len(body) > FORM_MOST:
        refuse(f"content-type is {content_type!r}; wanted {FORM}", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    fields = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True, max_num_fields=50))
    cookie: str | None = request.scope["state"].get("session")
    if cookie is None or not is_own_form(cookie, fields.get(FORM_FIELD, "")):
        refuse(
            "this form is not of your session, or you have signed in anew: load the page again", HTTPStatus.FORBIDDEN
        )
    return {name: value.replace("\r\n", "\n") for name, value in fields.items() if value}


def local_path(path: str | None) -> str:
    """Return the path if it leads to a page of ours, else that of the overview."""
    is_ours = path is not None and path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if is_ours and path is not None and path.isprintable() and path.isascii() else "/"


def redirect(path: str) -> Response[bytes]:
    """Return the answer that leads to another page."""
    return respond(HTTPStatus.SEE_OTHER, b"", "text/plain", {**HEADERS, "location": path})


async def _act(site: Site, request: AnyRequest, name: str, asked: dict[str, str]) -> Response[Any]:
    action = ACTIONS.get(name) or refuse(f"there is no action {name!r}", HTTPStatus.NOT_FOUND)
    note = asked.get("note", "").strip()
    if len(note) < REASON_LEAST:
        raise NothingToDo(f"give a reason of at least {REASON_LEAST} characters")
    args = action.args(_of_action(asked), site.context.runtime.clock())
    result = await perform_for(request, site.context, action.operation, {**args, action.reason: note})
    back = local_path(asked.get("back"))
    if name == "create-token":
        return await page(site, request, "token-made.html", active="tokens", made=result, back=back)
    answer = redirect(back)
    answer.cookies.append(flash_cookie(action.done(result), secure=request.url.scheme == "https"))
    return answer


async def _question(
    site: Site, request: AnyRequest, name: str, asked: Asked, *, problem: str = "", status: int = HTTPStatus.OK
) -> Response[Any]:
    action = ACTIONS.get(name) or refuse(f"there is no action {name!r}", HTTPStatus.NOT_FOUND)
    report = await make_report(site.context, principal_of(request))
    confirmation = None
    try:
        confirmation = action.prepare(report, _of_action(asked))
    except NothingToDo as error:
        problem = problem or str(error)
    return await page(
        site,
        request,
        "action.html",
        report=report,
        status=status,
        name=name,
        confirmation=confirmation,
        asked=_of_action(asked),
        reason=asked.get("note", ""),
        problem=problem,
        back=local_path(asked.get("back")),
        allowed=may_ask(principal_of(request).role, OPERATIONS[action.operation].request.needs),
    )


def _of_action(asked: Asked) -> dict[str, str]:
    return {name: value for name, value in asked.items() if name not in NOT_ASKED}
