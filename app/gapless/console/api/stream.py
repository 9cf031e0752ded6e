"""`/api/v1/stream`: the live stream, a WebSocket. `docs/streaming.md` has its messages.

Everything is checked before the connection becomes a WebSocket, and refused in HTTP: a script in a browser sees no
more of that than that it failed, so a plain GET of the same address answers what is wrong, and 426 if nothing is.
"""

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from litestar import asgi
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException
from litestar.handlers import ASGIRouteHandler

from gapless.console.auth import Area
from gapless.console.browser_sessions import COOKIE
from gapless.console.feed import messages
from gapless.console.feed.hub import FeedFull, Hub, ListenerAccess
from gapless.console.feed.messages import FeedRequest
from gapless.console.feed.session import Receive, Send, Session
from gapless.console.gate import Gate
from gapless.console.routing import HEADERS, JSON
from gapless.ledger import feed
from gapless.ledger.engine import StoreError
from gapless.ledger.feed import Position
from gapless.operations.context import OperationContext, OperationForbidden, OperationRefused
from gapless.operations.principals import Principal, names_in

PATH: Final = "/api/v1/stream"
FIELDS: Final = 200
"""Most parameters of a query that are looked at."""
AGAIN_S: Final = "5"
KEYS_SHOWN: Final = 20
NOT_KNOWN: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
"""Answers of the gate that say nothing of a token: others have tried too many, or it cannot be compared now."""


def stream_route(context: OperationContext, gate: Gate, hub: Hub) -> ASGIRouteHandler:
    """`/api/v1/stream`."""

    @asgi(PATH, copy_scope=False)
    async def stream(scope: Any, receive: Receive, send: Send) -> None:
        """Serve one listener, or say why not."""
        connection: ASGIConnection[Any, Any, Any, Any] = ASGIConnection(scope)
        try:
            access = await _let_in(connection, gate)
            request = await _read_request(scope, context, access.principal)
            _check_kind(scope)
            session = Session(hub, request, access, receive, send)
            hub.join(session)
        except HTTPException as error:
            await _refuse(scope, send, error.status_code, error.detail, error.headers or {})
            return
        except FeedFull:
            detail = f"{hub.limits.clients} listeners follow the stream already (private.stream_clients)"
            await _refuse(scope, send, HTTPStatus.SERVICE_UNAVAILABLE, detail, {"retry-after": AGAIN_S})
            return
        try:
            await receive()  # websocket.connect
            await send({"type": "websocket.accept"})
            await session.run()
        finally:
            hub.leave(session)

    return stream


def _check_kind(scope: Any) -> None:
    """Raise `HTTPException` unless a WebSocket was asked for."""
    if scope["type"] == "websocket":
        return
    if scope["method"] != "GET":
        raise HTTPException(status_code=HTTPStatus.METHOD_NOT_ALLOWED, detail="wanted GET", headers={"allow": "GET"})
    detail = "this is a WebSocket: connect to ws:// or wss:// instead"
    headers = {"upgrade": "websocket", "connection": "upgrade"}
    raise HTTPException(status_code=HTTPStatus.UPGRADE_REQUIRED, detail=detail, headers=headers)


async def _let_in(connection: ASGIConnection[Any, Any, Any, Any], gate: Gate) -> ListenerAccess:
    """Return who listens. Raises `HTTPException`."""
    try:
        principal = await gate.let_in(connection, Area.STREAM)
    except StoreError as error:
        raise _unavailable(error) from error

    async def check() -> Principal | None:
        try:
            return await gate.let_in(connection, Area.STREAM)
        except HTTPException as error:
            return principal if error.status_code in NOT_KNOWN else None

    shown = (connection.headers.get("authorization"), connection.cookies.get(COOKIE))
    return ListenerAccess(key=shown, principal=principal, check=check)


async def _read_request(scope: Any, context: OperationContext, principal: Principal) -> FeedRequest:
    """Return what the query asks for, within what the principal may see. Raises `HTTPException`."""
    try:
        pairs = parse_qsl(scope["query_string"].decode(), keep_blank_values=True, max_num_fields=FIELDS)
        request = messages.read_query(pairs, context.runtime.clock())
        _check_sources(request, context, principal)
    except OperationForbidden as error:
        raise HTTPException(status_code=HTTPStatus.FORBIDDEN, detail=str(error)) from error
    except (OperationRefused, ValueError) as error:
        raise HTTPException(status_code=HTTPStatus.BAD_REQUEST, detail=str(error)) from error
    if request.after is not None:
        await _check_cursor(context, request.after)
    request = replace(request, sources=principal.sources) if request.sources is None else request
    if request.keys:
        await _check_keys(context, request)
    return request


def _check_sources(request: FeedRequest, context: OperationContext, principal: Principal) -> None:
    """Raise `OperationForbidden` and `OperationRefused` for a source that is not for the principal, or not known."""
    for name in sorted(request.sources or ()):
        if not principal.may_touch(name):
            raise OperationForbidden(f"{principal.name} is limited to sources {names_in(principal.sources)}")
        context.source(name)


async def _check_cursor(context: OperationContext, after: Position) -> None:
    try:
        is_known = await context.read(feed.is_known, after)
    except StoreError as error:
        raise _unavailable(error) from error
    if not is_known:
        detail = (
            "the ledger does not know this cursor: it is of another one, or of a time that a restored backup lacks; "
            "leave after out, or use since to get what was recorded from a time on"
        )
        raise HTTPException(status_code=HTTPStatus.GONE, detail=detail)


async def _check_keys(context: OperationContext, request: FeedRequest) -> None:
    """Raise `HTTPException` for a key that is not in the ledger, or not in what the listener may see."""
    try:
        found = await context.read(feed.of_keys, request.keys)
    except StoreError as error:
        raise _unavailable(error) from error
    wanted = replace(request, since_us=None)
    unknown = set(request.keys) - {event.key for event in found if wanted.wants(messages.encode(event))}
    if unknown:
        shown = ", ".join(repr(key[:80]) for key in sorted(unknown)[:KEYS_SHOWN])
        detail = f"{len(unknown)} keys are not among the events that you ask for: {shown}"
        raise HTTPException(status_code=HTTPStatus.NOT_FOUND, detail=detail)


def _unavailable(error: StoreError) -> HTTPException:
    detail = f"the store does not answer: {error}"
    return HTTPException(status_code=HTTPStatus.SERVICE_UNAVAILABLE, detail=detail, headers={"retry-after": AGAIN_S})


async def _refuse(scope: Any, send: Send, status: int, detail: str, more: Mapping[str, str]) -> None:
    """Answer in HTTP, whether a WebSocket was asked for or not."""
    body = msgspec.json.encode({"error": detail})
    headers = {**HEADERS, "content-type": JSON, "content-length": str(len(body)), **more}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = 'Basic realm="gapless", charset="UTF-8"'
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": f"{kind}.start", "status": int(status), "headers": pairs})
    await send({"type": f"{kind}.body", "body": body})
