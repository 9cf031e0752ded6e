"""The application of the private listener, and its probes.

Probes and metrics are served in every role; status, the page and operations only in the role `console`.
"""

import asyncio
from http import HTTPStatus
from typing import Any, Final

from litestar import Litestar, Request, Response, get
from litestar.exceptions import HTTPException
from litestar.handlers import ASGIRouteHandler, HTTPRouteHandler

from gapless.console.api.attempts import attempts_route
from gapless.console.api.changes import change_routes
from gapless.console.api.dead_letters import dead_letter_routes
from gapless.console.api.jobs import job_routes
from gapless.console.api.operations import operations_route
from gapless.console.api.receipts import receipts_route
from gapless.console.api.status import status_route
from gapless.console.api.stream import stream_route
from gapless.console.auth import Area
from gapless.console.feed.hub import Hub
from gapless.console.gate import Gate
from gapless.console.metrics import metrics_route
from gapless.console.pages.overview import overview_route, style_route
from gapless.console.routing import CONSOLE, ConsoleOptions, guarded, respond_json, respond_text
from gapless.ledger import leases
from gapless.ledger.engine import StoreError
from gapless.metrics import Metrics
from gapless.operations.context import ApprovalNeeded, OperationContext, OperationForbidden, OperationRefused

BODY_MAX_BYTES: Final = 16 << 20
READY_TIMEOUT_S: Final = 5.0


def build_console_app(options: ConsoleOptions, context: OperationContext, metrics: Metrics) -> Litestar:
    """Return the application. Its routes depend on the roles; each request is checked by its gate."""
    gate = Gate(options.access, context.runtime, options.trusted_proxies)
    handlers: list[HTTPRouteHandler | ASGIRouteHandler] = [
        livez_route(context),
        readyz_route(options, context),
        metrics_route(options, context, metrics),
    ]
    if CONSOLE in options.roles:
        handlers += [
            status_route(options, context),
            operations_route(context),
            receipts_route(context),
            stream_route(context, gate, options.hub or Hub(context.runtime)),
            attempts_route(context),
            *dead_letter_routes(context),
            *job_routes(context),
            *change_routes(context),
            overview_route(options, context),
            style_route(),
        ]
    app = Litestar(
        route_handlers=handlers,
        exception_handlers={
            HTTPException: _http_error,
            OperationRefused: _refused,
            OperationForbidden: _forbidden,
            ApprovalNeeded: _approval_needed,
            StoreError: _unavailable,
        },
        lifespan=[gate.writing],
        request_max_body_size=BODY_MAX_BYTES,
        openapi_config=None,
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )
    app.state.gate = gate
    return app


def livez_route(context: OperationContext) -> HTTPRouteHandler:
    """`GET /livez`."""

    @get("/livez", guards=[guarded(Area.PROBE)])
    async def livez() -> Response[bytes]:
        """Answer 200 while the event loop and the writer work; otherwise only a restart helps."""
        return respond_text(*_probe_result(context.runtime.writer.is_alive, "the writer does not commit"))

    return livez


def readyz_route(options: ConsoleOptions, context: OperationContext) -> HTTPRouteHandler:
    """`GET /readyz`."""

    @get("/readyz", guards=[guarded(Area.PROBE)])
    async def readyz() -> Response[bytes]:
        """Answer 200 if the store can be read and written, has this release's schema, and its keys are there."""
        runtime = context.runtime
        if runtime.keyring.state.blocked:
            return respond_text(HTTPStatus.SERVICE_UNAVAILABLE, f"nothing is recorded: {runtime.keyring.state.blocked}")
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                current = await context.read(options.schema_is_current)
                if current:
                    await runtime.write(leases.try_write, slot=runtime.writer.recorder.slot)
        except StoreError as error:
            return respond_text(HTTPStatus.SERVICE_UNAVAILABLE, f"the store does not work: {error}")
        except TimeoutError:
            failure = runtime.writer.failure
            why = f": {failure.error}" if failure else ""
            return respond_text(HTTPStatus.SERVICE_UNAVAILABLE, f"the store does not answer{why}")
        return respond_text(
            *_probe_result(current, "the schema is not the one of this release; run `gapless db upgrade`")
        )

    return readyz


def _probe_result(passed: bool, problem: str) -> tuple[HTTPStatus, str]:  # noqa: FBT001 - the result of a check
    return (HTTPStatus.OK, "ok") if passed else (HTTPStatus.SERVICE_UNAVAILABLE, problem)


def _http_error(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    needs_token = error.status_code == HTTPStatus.UNAUTHORIZED
    headers = {"www-authenticate": 'Basic realm="gapless", charset="UTF-8"'} if needs_token else {}
    return respond_json(error.status_code, {"error": error.detail}, {**headers, **(error.headers or {})})


def _refused(_: Request[Any, Any, Any], error: OperationRefused) -> Response[bytes]:
    return respond_json(HTTPStatus.BAD_REQUEST, {"error": str(error)})


def _forbidden(_: Request[Any, Any, Any], error: OperationForbidden) -> Response[bytes]:
    return respond_json(HTTPStatus.FORBIDDEN, {"error": str(error)})


def _approval_needed(_: Request[Any, Any, Any], error: ApprovalNeeded) -> Response[bytes]:
    return respond_json(HTTPStatus.CONFLICT, {"error": str(error)})


def _unavailable(_: Request[Any, Any, Any], error: StoreError) -> Response[bytes]:
    return respond_json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": f"the store does not answer: {error}"})
