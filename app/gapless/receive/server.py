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
"""Options of uvicorn: nothing per request that nobody reads, no websockets."""

Answering = Callable[[Scope, Receive, Send], Awaitable[None]]


def build_app(receiver: Receiver, retired: Mapping[str, int] | None = None) -> Litestar:
    """The application for the sources that `receiver` has now. `retired`: since when, in microseconds, by name."""
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


def _route(path: str, answering: Answering) -> ASGIRouteHandler:
    return asgi(path, copy_scope=False)(answering)


def _healthz(admission: Admission) -> Answering:
    """200 while webhooks are taken, for a load balancer."""

    async def healthz(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI names them
        await _send_all(scope, send, _health(scope, admission))

    return healthz


def _health(scope: Scope, admission: Admission) -> responses.Response:
    if scope.get("method") not in ("GET", "HEAD"):
        return responses.WRONG_METHOD
    return responses.unavailable() if admission.closed_because else responses.HEALTHY


def _retired(receiver: Receiver, name: str, since_us: int) -> Answering:
    """503 for a time, so that the provider keeps trying while somebody decides; then as if it never was."""
    until_us = since_us + span_us(RETIRED_GRACE)
    turned_away = receiver.runtime.metrics.webhooks.labels(name, Outcome.UNAVAILABLE.value)

    async def retired(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI names them
        if to_us(receiver.runtime.clock()) < until_us:
            turned_away.inc()
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
