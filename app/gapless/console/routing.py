"""Shared by all routes of the private listener: options, the check of each request, the report, and responses."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from gapless.client_address import TrustedProxies
from gapless.console.auth import Access, Area
from gapless.console.feed.hub import Hub
from gapless.console.gate import Gate
from gapless.domain import Sources
from gapless.ledger.engine import StoreError
from gapless.ledger.writer import Work
from gapless.operations.context import OperationContext, OperationForbidden, OperationRefused
from gapless.operations.principals import Principal
from gapless.operations.registry import perform
from gapless.status.reader import fault_of, read_report
from gapless.status.report import StatusReport

if TYPE_CHECKING:
    from gapless.console.identity_provider import IdentityProvider

CONSOLE: Final = "console"
"""The role that shows the ledger."""
REPORT_TIMEOUT_S: Final = 8.0
"""Less than the ten seconds that Prometheus waits by default."""
JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleOptions:
    """Facts about the process, for its private listener. `schema_is_current` reads the database."""

    access: Access
    roles: frozenset[str]
    version: str
    started_at: datetime
    schema_is_current: Work[bool]
    trusted_proxies: TrustedProxies | None = None
    """The proxies whose header tells the address of the client; None: there are none."""
    hub: Hub | None = None
    """The live stream, if several listeners share it; None: this one has its own."""
    identity_provider: "IdentityProvider | None" = None
    """Who signs people in; None: only tokens do."""


async def make_report(context: OperationContext, principal: Principal | None = None) -> StatusReport:
    """Return the current report, for a limited principal without the sources of others. Raises `StoreError`."""
    runtime = context.runtime
    now, failure = runtime.clock(), runtime.writer.failure
    faults = () if failure is None else (fault_of(failure.error, now - failure.lasts),)
    if principal is None or not principal.is_limited:
        return await read_report(runtime.store, context.sources, now, faults=faults)
    shown = Sources(each for each in context.sources if principal.may_touch(each.name))
    report = await read_report(runtime.store, shown, now, faults=faults)
    return replace(report, destinations=(), older_processes=(), clock_offsets=())


async def make_report_or_none(context: OperationContext) -> StatusReport | None:
    """Return the current report, or None if the store does not answer in time."""
    try:
        async with asyncio.timeout(REPORT_TIMEOUT_S):
            return await make_report(context)
    except (StoreError, TimeoutError):
        return None


def guarded(area: Area, *, by_form: bool = False) -> Guard:
    """Return the guard of `area`. It refuses requests that the application's gate does not let in.

    `by_form`: a browser that has signed in may change something, by a form of ours.
    """

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        gate: Gate = connection.app.state.gate
        connection.scope["state"]["principal"] = await gate.let_in(connection, area, by_form=by_form)

    return guard


def principal_of(request: Request[Any, Any, Any]) -> Principal:
    """Return who asks, as the guard of the route has found."""
    principal: Principal = request.scope["state"]["principal"]
    return principal


async def perform_for(
    request: Request[Any, Any, Any], context: OperationContext, name: str, args: Mapping[str, object]
) -> dict[str, object]:
    """Perform an operation for whoever asks. Raises `OperationRefused`, `OperationForbidden` and `StoreError`."""
    principal = principal_of(request)
    try:
        return await perform(context.acting_as(principal), name, args)
    except OperationForbidden:
        request.app.state.gate.refusals.note_denied(principal)
        raise


def respond(status_code: int, body: bytes, media_type: str, headers: Mapping[str, str] = HEADERS) -> Response[bytes]:
    """Return a response with `body`. Its type is a header, because Litestar adds a charset to each text."""
    return Response(content=body, status_code=status_code, headers={**headers, "content-type": media_type})


def respond_text(status_code: int, text: str) -> Response[bytes]:
    """Return a response with one line of text."""
    return respond(status_code, f"{text}\n".encode(), TEXT)


def respond_json(status_code: int, value: object, extra: Mapping[str, str] | None = None) -> Response[bytes]:
    """Return a response with `value` as JSON, and `extra` headers."""
    return respond_as(JSON, status_code, value, extra)


def respond_as(
    media_type: str, status_code: int, value: object, extra: Mapping[str, str] | None = None
) -> Response[bytes]:
    """Return a response with `value` as JSON of that media type, and `extra` headers."""
    return respond(status_code, msgspec.json.encode(value), media_type, {**HEADERS, **(extra or {})})


def read_object(content_type: str, body: bytes) -> dict[str, object]:
    """Return the JSON object in the body. Its content type is required because forms of other sites cannot send it."""
    if content_type.partition(";")[0].strip().lower() != JSON:
        raise HTTPException(status_code=415, detail=f"content-type is {content_type!r}; wanted {JSON}")
    try:
        return msgspec.json.decode(body or b"{}", type=dict[str, object])
    except msgspec.DecodeError as error:
        raise OperationRefused(f"the body is not a JSON object: {error}") from error
