"""The application of the private listener, and its probes.

Probes and metrics are served in every role; status, the page and operations only in the role `console`.
"""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from litestar import Litestar, Response, Router, get
from litestar.exceptions import HTTPException
from litestar.handlers import ASGIRouteHandler, HTTPRouteHandler

from gapless.console.api.attempts import attempts_route
from gapless.console.api.changes import change_routes
from gapless.console.api.dead_letters import dead_letter_routes
from gapless.console.api.document import api_router
from gapless.console.api.jobs import job_routes
from gapless.console.api.operations import operations_route
from gapless.console.api.problems import PREFIX, problem
from gapless.console.api.shared import AnyRequest
from gapless.console.api.status import status_route
from gapless.console.api.stream import stream_route
from gapless.console.auth import Area
from gapless.console.feed.hub import Hub
from gapless.console.gate import Gate
from gapless.console.metrics import metrics_route
from gapless.console.pages.site import page_routes, refusal_page, wants_page
from gapless.console.routing import CONSOLE, ConsoleOptions, guarded, respond_json, respond_text
from gapless.ledger import leases
from gapless.ledger.engine import StoreError
from gapless.metrics import Metrics
from gapless.operations.context import ApprovalNeeded, OperationContext, OperationForbidden, OperationRefused

BODY_MAX_BYTES: Final = 16 << 20
READY_TIMEOUT_S: Final = 5.0


def build_console_app(options: ConsoleOptions, context: OperationContext, metrics: Metrics) -> Litestar:
    """Return the application. Its routes depend on the roles; each request is checked by its gate."""
    provider = options.identity_provider
    oidc_options = None if provider is None else provider.options
    gate = Gate(options.access, context.runtime, options.trusted_proxies, oidc_options)
    handlers: list[HTTPRouteHandler | ASGIRouteHandler | Router] = [
        livez_route(context),
        readyz_route(options, context),
        metrics_route(options, context, metrics),
    ]
    if CONSOLE in options.roles:
        handlers += [
            status_route(options, context),
            operations_route(context),
            api_router(context),
            stream_route(context, gate, options.hub or Hub(context.runtime)),
            attempts_route(context),
            *dead_letter_routes(context),
            *job_routes(context),
            *change_routes(context),
            *page_routes(options, context),
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
        lifespan=[gate.writing] if provider is None else [gate.writing, provider.open],
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


def _http_error(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    needs_token = error.status_code == HTTPStatus.UNAUTHORIZED
    headers = {"www-authenticate": 'Basic realm="gapless", charset="UTF-8"'} if needs_token else {}
    return _answer(request, error.status_code, error_detail(error), {**headers, **(error.headers or {})})


def error_detail(error: HTTPException) -> str:
    """Return what was wrong, with the parameters that Litestar could not read."""
    extra = error.extra if isinstance(error.extra, list) else []
    parts = [f"{each.get('key', 'body')}: {each.get('message')}" for each in extra if isinstance(each, dict)]
    return "; ".join([error.detail, *parts])


def _answer(request: AnyRequest, status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """Return a refusal in the shape that belongs to the path."""
    if request.url.path.startswith(f"{PREFIX}/"):
        return problem(status, detail, headers)
    if wants_page(request):
        return refusal_page(request, status, detail)
    return respond_json(status, {"error": detail}, headers)


def _refused(request: AnyRequest, error: OperationRefused) -> Response[bytes]:
    return _answer(request, HTTPStatus.BAD_REQUEST, str(error))


def _forbidden(request: AnyRequest, error: OperationForbidden) -> Response[bytes]:
    return _answer(request, HTTPStatus.FORBIDDEN, str(error))


def _approval_needed(request: AnyRequest, error: ApprovalNeeded) -> Response[bytes]:
    return _answer(request, HTTPStatus.CONFLICT, str(error))


def _unavailable(request: AnyRequest, error: StoreError) -> Response[bytes]:
    return _answer(request, HTTPStatus.SERVICE_UNAVAILABLE, f"the store does not answer: {error}")
