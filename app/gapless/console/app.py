"""The private application: probes and metrics in every role; status, the page and operations in role `console`."""

from http import HTTPStatus
from typing import Any, Final

from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException

from gapless.console.api.operations import operations_route
from gapless.console.api.status import status_route
from gapless.console.guard import CONSOLE, ConsoleOptions
from gapless.console.liveness import livez_route, readyz_route
from gapless.console.metrics import metrics_route
from gapless.console.pages.overview import overview_route, style_route
from gapless.console.responses import respond_json
from gapless.ledger.engine import StoreError
from gapless.metrics import Metrics
from gapless.operations.context import OperationContext, OperationRefused

BODY_MAX_BYTES: Final = 16 << 20


def build_console_app(options: ConsoleOptions, context: OperationContext, metrics: Metrics) -> Litestar:
    """The application. What it may show and do depends on the roles and on who asks."""
    handlers = [livez_route(options, context), readyz_route(options, context), metrics_route(options, context, metrics)]
    if CONSOLE in options.roles:
        handlers += [
            status_route(options, context),
            operations_route(options, context),
            overview_route(options, context),
            style_route(options),
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


def _http_error(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    wants_token = error.status_code == HTTPStatus.UNAUTHORIZED
    asks = {"www-authenticate": 'Basic realm="gapless", charset="UTF-8"'} if wants_token else {}
    return respond_json(error.status_code, {"error": error.detail}, asks)


def _refused(_: Request[Any, Any, Any], error: OperationRefused) -> Response[bytes]:
    return respond_json(HTTPStatus.BAD_REQUEST, {"error": str(error)})


def _unavailable(_: Request[Any, Any, Any], error: StoreError) -> Response[bytes]:
    return respond_json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": f"the store does not answer: {error}"})
