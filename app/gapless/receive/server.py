"""The public application: one static route per source, `/healthz`, and nothing else.

Static, because path parameters on `@asgi` raise in Litestar 2.25; `@asgi`, because a routed handler
costs as much again as verifying the webhook.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from litestar import Litestar, Request, Response, asgi
from litestar.exceptions import HTTPException
from litestar.handlers import ASGIRouteHandler

from gapless.domain import span_us, to_us
from gapless.ledger.sources import RETIRED_GRACE
from gapless.receive import responses
from gapless.receive.admission import Admission
from gapless.receive.endpoint import Receive, Receiver, Scope, Send, WebhookEndpoint
from gapless.receive.webhook import Outcome

WEBHOOKS: Final = "/webhooks/"
HEALTHZ: Final = "/healthz"
SERVING: Final[Mapping[str, Any]] = {
    "access_log": False,
    "log_config": None,
    "proxy_headers": False,
    "server_header": False,
    "ws": "none",
}
"""Options of uvicorn: no work per request that nobody needs, no websockets."""

AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


def build_app(receiver: Receiver, retired: Mapping[str, int] | None = None) -> Litestar:
    """Return the application for the sources that `receiver` has now.

    `retired`: names of retired sources and when each was retired, in microseconds.
    """
    sources = receiver.runtime.sources
    routes = [_route(WEBHOOKS + source.name, WebhookEndpoint(source, receiver).answer) for source in sources]
    gone = {name: since_us for name, since_us in (retired or {}).items() if name not in sources}
    routes += [_route(WEBHOOKS + name, _retired(receiver, name, since_us)) for name, since_us in gone.items()]
    routes.append(_route(HEALTHZ, _healthz(receiver.admission)))

    def unrouted(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
        receiver.runtime.metrics.unrouted.inc()
        body = responses.UNROUTED[1]["body"]
        return Response(content=body, status_code=error.status_code, media_type=responses.JSON)

    return Litestar(
        route_handlers=routes,
        exception_handlers={HTTPException: unrouted},
        openapi_config=None,
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )


def _route(path: str, app: AsgiApp) -> ASGIRouteHandler:
    return asgi(path, copy_scope=False)(app)


def _healthz(admission: Admission) -> AsgiApp:
    """Return a health check for a load balancer: 200 while webhooks are accepted."""

    async def healthz(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI names them
        await _send_all(scope, send, _health(scope, admission))

    return healthz


def _health(scope: Scope, admission: Admission) -> responses.Response:
    if scope.get("method") not in ("GET", "HEAD"):
        return responses.WRONG_METHOD
    return responses.unavailable() if admission.closed_because else responses.HEALTHY


def _retired(receiver: Receiver, name: str, since_us: int) -> AsgiApp:
    """Return an app that answers 503 for `RETIRED_GRACE`, so that the provider keeps retrying, and 404 after it."""
    until_us = since_us + span_us(RETIRED_GRACE)
    unavailable = receiver.runtime.metrics.webhooks.labels(name, Outcome.UNAVAILABLE.value)

    async def retired(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI names them
        if to_us(receiver.runtime.clock()) < until_us:
            unavailable.inc()
            await _send_all(scope, send, responses.unavailable())
        else:
            receiver.runtime.metrics.unrouted.inc()
            await _send_all(scope, send, responses.UNROUTED)

    return retired


async def _send_all(scope: Scope, send: Send, response: responses.Response) -> None:
    if scope["type"] != "http":
        await send({"type": "websocket.close"})
        return
    for message in response:
        await send(message)
