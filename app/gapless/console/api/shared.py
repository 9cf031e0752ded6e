"""Shared by the routes of the API: parameters that many lists take, and what a limited token may see."""

from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, NoReturn, TypeAlias, TypeVar
from urllib.parse import unquote_to_bytes

from litestar import Request, get
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.params import QueryParameter

from gapless.console.api.problems import OF_READS
from gapless.console.auth import Area
from gapless.console.routing import JSON, guarded, principal_of
from gapless.domain import from_us, to_us
from gapless.operations.context import OperationContext
from gapless.text import read_time

PAGE: Final = 50
AnyRequest: TypeAlias = Request[Any, Any, Any]
Limit: TypeAlias = Annotated[int, QueryParameter(ge=1, le=500, description="Most entries of the page.")]
After: TypeAlias = Annotated[
    str | None,
    QueryParameter(name="cursor", max_length=200, description="`next` of the page before; absent: the first."),
]
OfSource: TypeAlias = Annotated[str | None, QueryParameter(max_length=40, description="Only of this source.")]
_TIME = r"^(\d{1,6}[smhdw]|\d{4}-\d{2}-\d{2}([T ][0-9:.,]+)?(Z|[+-]\d{2}:?\d{2})?)$"
Since: TypeAlias = Annotated[
    str | None, QueryParameter(max_length=40, pattern=_TIME, description="From then on: `24h` ago, or RFC 3339.")
]
Until: TypeAlias = Annotated[
    str | None, QueryParameter(max_length=40, pattern=_TIME, description="Before then: `24h` ago, or RFC 3339.")
]
T = TypeVar("T", bound=Callable[..., Any])


def reading(path: str, *, tag: str) -> Callable[[Callable[..., Any]], HTTPRouteHandler]:
    """Return the decorator of a route that only reads."""
    return get(path, guards=[guarded(Area.READ)], responses=OF_READS, tags=[tag])


def refuse(detail: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> NoReturn:
    """Raise `HTTPException`."""
    raise HTTPException(status_code=status, detail=detail)


def chosen_sources(request: AnyRequest, name: str | None) -> frozenset[str] | None:
    """Return the names of the sources to show; None: all. Raises `HTTPException` for one that may not be seen."""
    limits = principal_of(request).sources
    if name is None:
        return limits
    if "\0" in name:
        refuse("source has a character that no name has")
    if not principal_of(request).may_touch(name):
        known = ", ".join(sorted(limits or ()))
        refuse(f"this token is limited to sources {known}; name one of them", HTTPStatus.FORBIDDEN)
    return frozenset({name})


def refuse_limited(request: AnyRequest, what: str) -> None:
    """Raise `HTTPException` if the token is limited to some sources: this concerns all of them."""
    principal = principal_of(request)
    if principal.is_limited:
        request.app.state.gate.refusals.note_denied(principal)
        refuse(f"{principal.name} is limited to some sources, and {what} concern all of them", HTTPStatus.FORBIDDEN)


def time_us(context: OperationContext, name: str, text: str | None) -> int | None:
    """Return the time of a parameter in microseconds. Raises `HTTPException` (400)."""
    if text is None:
        return None
    try:
        return to_us(read_time(text, context.runtime.clock()))
    except ValueError as error:
        refuse(f"{name}: {error}")


def time(us: int | None) -> datetime | None:
    """Return a stored time; None: it is not known, or not yet."""
    return None if us is None else from_us(us)


def json_only(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Refuse what a form of another site could send."""
    content_type = connection.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != JSON:
        status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        raise HTTPException(status_code=status, detail=f"content-type is {content_type!r}; wanted {JSON}")


def rest_of_path(request: AnyRequest, before: str) -> str:
    """Return the last part of the path as it was sent, behind `before`: a key may hold slashes."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    _, _, rest = raw.partition(b"?")[0].partition(before.encode())
    try:
        return unquote_to_bytes(rest).decode()
    except UnicodeDecodeError:
        refuse("the path is not UTF-8", HTTPStatus.NOT_FOUND)
