"""The private application: probes and metrics in every role; status, the page and operations in role `console`."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, Response, get, post
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.types import Guard

from gapless.console import auth, pages
from gapless.console import metrics as exposition
from gapless.console.auth import Access, Area, Caller, Verdict
from gapless.console.metrics import LedgerCollector
from gapless.ledger.engine import StoreError
from gapless.ledger.writer import Work
from gapless.metrics import Metrics
from gapless.operations.context import OperationContext, OperationRefused
from gapless.operations.registry import perform
from gapless.status import values
from gapless.status.reader import read_report
from gapless.status.report import StatusReport
from gapless_reconcilers.kit.contract import ReadBudget

CONSOLE: Final = "console"
"""The role that shows the ledger."""
JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
READY_WITHIN_S: Final = 5.0
METRICS_WITHIN_S: Final = 8.0
"""Less than the ten seconds that Prometheus waits by default."""
BODY_MAX_BYTES: Final = 16 << 20
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateOptions:
    """What the private listener is told of its process. `schema_is_current` asks the database."""

    access: Access
    roles: frozenset[str]
    version: str
    started_at: datetime
    schema_is_current: Work[bool]
    budgets: Mapping[str, ReadBudget | None] = field(default_factory=dict)
    """What each source may read, by name."""


def build_private_app(options: PrivateOptions, context: OperationContext, metrics: Metrics) -> Litestar:
    """The application. What it may show and do depends on the roles and on who asks."""
    handlers = [_livez(options, context), _readyz(options, context), _metrics(options, context, metrics)]
    if CONSOLE in options.roles:
        handlers += [
            _status(options, context),
            _operations(options, context),
            _overview(options, context),
            _style(options),
        ]
    return Litestar(
        route_handlers=handlers,
        exception_handlers={HTTPException: _http_error, OperationRefused: _refused, StoreError: _unavailable},
        request_max_body_size=BODY_MAX_BYTES,
        openapi_config=None,
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )


def _livez(options: PrivateOptions, context: OperationContext) -> HTTPRouteHandler:
    @get("/livez", guards=[_guard(options.access, Area.PROBE)])
    async def livez() -> Response[bytes]:
        """200 while the event loop answers and the writer is not stuck: else only a restart helps."""
        return _text(*_state(context.writer.is_alive, "the writer does not commit"))

    return livez


def _readyz(options: PrivateOptions, context: OperationContext) -> HTTPRouteHandler:
    @get("/readyz", guards=[_guard(options.access, Area.PROBE)])
    async def readyz() -> Response[bytes]:
        """200 if the store answers and has the schema of this release."""
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                current = await context.read(options.schema_is_current)
        except (StoreError, TimeoutError):
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, "the store does not answer")
        return _text(*_state(current, "the schema is not the one of this release; run `gapless db upgrade`"))

    return readyz


def _metrics(options: PrivateOptions, context: OperationContext, metrics: Metrics) -> HTTPRouteHandler:
    @get("/metrics", guards=[_guard(options.access, Area.METRICS)])
    async def metrics_page(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Every series. Without the store: the process series alone."""
        ledger = LedgerCollector(await _report_or_none(options, context)) if CONSOLE in options.roles else None
        body, content_type = exposition.render(metrics, ledger, request.headers.get("accept", ""))
        return _response(HTTPStatus.OK, body, content_type)

    return metrics_page


def _status(options: PrivateOptions, context: OperationContext) -> HTTPRouteHandler:
    @get("/api/status", guards=[_guard(options.access, Area.READ)])
    async def status_page() -> Response[bytes]:
        """Return the report with its troubles, and which process says so."""
        report = await _report(options, context)
        return _json(HTTPStatus.OK, {"process": _process(options, report.at), **values.of_report(report)})

    return status_page


def _operations(options: PrivateOptions, context: OperationContext) -> HTTPRouteHandler:
    @post("/api/operations/{name:str}", status_code=200, guards=[_guard(options.access, Area.WRITE)])
    async def operation(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Do an operation with the JSON object of the body."""
        args = _object(request.headers.get("content-type", ""), await request.body())
        return _json(HTTPStatus.OK, await perform(context, request.path_params["name"], args))

    return operation


def _overview(options: PrivateOptions, context: OperationContext) -> HTTPRouteHandler:
    @get("/", guards=[_guard(options.access, Area.READ)])
    async def overview() -> Response[bytes]:
        """One page that tells at a glance how everything stands."""
        page = pages.overview(await _report(options, context), version=options.version)
        return _response(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8")

    return overview


def _style(options: PrivateOptions) -> HTTPRouteHandler:
    @get("/style.css", guards=[_guard(options.access, Area.READ)])
    async def style() -> Response[bytes]:
        """The looks of the page."""
        return _response(HTTPStatus.OK, pages.STYLE, "text/css; charset=utf-8")

    return style


async def _report(options: PrivateOptions, context: OperationContext) -> StatusReport:
    return await read_report(context.store, context.sources, options.budgets, context.clock())


async def _report_or_none(options: PrivateOptions, context: OperationContext) -> StatusReport | None:
    try:
        async with asyncio.timeout(METRICS_WITHIN_S):
            return await _report(options, context)
    except (StoreError, TimeoutError):
        return None


def _process(options: PrivateOptions, now: datetime) -> dict[str, object]:
    return {
        "version": options.version,
        "roles": sorted(options.roles),
        "started_at": options.started_at,
        "uptime_s": (now - options.started_at).total_seconds(),
    }


def _object(content_type: str, body: bytes) -> dict[str, object]:
    """The JSON object that was sent. The type is required because no form on another site can send it."""
    if content_type.partition(";")[0].strip().lower() != JSON:
        raise HTTPException(status_code=415, detail=f"content-type is {content_type!r}; wanted {JSON}")
    try:
        return msgspec.json.decode(body or b"{}", type=dict[str, object])
    except msgspec.DecodeError as error:
        raise OperationRefused(f"the body is not a JSON object: {error}") from error


def _guard(access: Access, area: Area) -> Guard:
    def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        headers = connection.headers
        caller = Caller(
            host=headers.get("host"),
            origin=headers.get("origin"),
            fetch_site=headers.get("sec-fetch-site"),
            authorization=headers.get("authorization"),
        )
        verdict = auth.judge(access, area, caller)
        if verdict is not Verdict.WELCOME:
            raise HTTPException(status_code=verdict.status, detail=verdict.advice)

    return guard


def _state(good: bool, otherwise: str) -> tuple[HTTPStatus, str]:  # noqa: FBT001 - it is the whole question
    return (HTTPStatus.OK, "ok") if good else (HTTPStatus.SERVICE_UNAVAILABLE, otherwise)


def _response(status_code: int, body: bytes, media_type: str, headers: Mapping[str, str] = HEADERS) -> Response[bytes]:
    return Response(content=body, status_code=status_code, media_type=media_type, headers=dict(headers))


def _text(status_code: int, text: str) -> Response[bytes]:
    return _response(status_code, f"{text}\n".encode(), TEXT)


def _json(status_code: int, value: object, extra: Mapping[str, str] | None = None) -> Response[bytes]:
    return _response(status_code, msgspec.json.encode(value), JSON, {**HEADERS, **(extra or {})})


def _http_error(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    wants_token = error.status_code == HTTPStatus.UNAUTHORIZED
    asks = {"www-authenticate": 'Basic realm="gapless", charset="UTF-8"'} if wants_token else {}
    return _json(error.status_code, {"error": error.detail}, asks)


def _refused(_: Request[Any, Any, Any], error: OperationRefused) -> Response[bytes]:
    return _json(HTTPStatus.BAD_REQUEST, {"error": str(error)})


def _unavailable(_: Request[Any, Any, Any], error: StoreError) -> Response[bytes]:
    return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": f"the store does not answer: {error}"})
